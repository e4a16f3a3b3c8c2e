@0xb1c04f7d2a6e9358;
# A plan as ranks are told it (control.capnp), mirroring graph/plan.h: the meaning of each field
# stands there.

using Cxx = import "/capnp/c++.capnp";
using ModelIdentity = import "weights.capnp".ModelIdentity;
$Cxx.namespace("chainpump::schema");

struct Plan {
  epoch @0 :UInt32;          # chosen by the coordinator, from 1; dies with the next plan
  modelPath @1 :Text;
  contextTokens @2 :Int32;
  prefillChunkTokens @3 :Int32;
  maxMicrobatchTokens @4 :Int32;
  maxSequences @5 :Int32;
  maxMicrobatches @6 :Int32;
  exactActivations @7 :Bool;
  kv @8 :KvPlan;
  stages @9 :List(StagePlan);  # in chain order
  edges @10 :List(EdgePlan);   # the last is the return edge
  maxQueued @11 :Int32;
  decodeDelayNs @12 :Int64;
  prefixCache @13 :Bool;
  replayLogBytes @14 :Int64;   # of each rank
  failoverRestarts @15 :Int32;
  failoverWindowNs @16 :Int64;
  failoverEvictsSlow @17 :Bool;
  nodes @18 :List(NodePlan);   # that were planned over
  model @19 :ModelIdentity;
}

struct NodePlan { name @0 :Text; numCores @1 :Int32; }

struct KvPlan {
  type @0 :Text;             # element type by name: "f32", "bf16", "f16"
  blockTokens @1 :Int32;
  numBlocks @2 :Int32;
}

struct StagePlan {
  index @0 :Int32;
  name @1 :Text;
  layerBegin @2 :Int32;
  layerEnd @3 :Int32;
  hasEmbedding @4 :Bool;
  hasHead @5 :Bool;
  devices @6 :List(DevicePlan);  # of its ranks, by replica
  numThreads @7 :Int32;
  weightBytes @8 :Int64;
  kvBytes @9 :Int64;
  slotBytes @10 :Int64;
  predictedDecodeS @11 :Float64;
  predictedPrefillS @12 :Float64;
  standbys @13 :Int32;
  nodes @14 :List(Text);
}

struct DevicePlan { kind @0 :Text; cores @1 :List(Int32); node @2 :Text; }  # "cpu"

enum TransportKind { automatic @0; tcp @1; sharedMemory @2; loopback @3; }
enum SpinPolicy { automatic @0; always @1; never @2; }
enum ChecksumPolicy { automatic @0; on @1; off @2; }

struct EdgePlan {
  id @0 :UInt32;
  from @1 :Int32;            # stage indices
  to @2 :Int32;
  isReturn @3 :Bool;
  transport @4 :TransportKind;
  spin @5 :SpinPolicy;
  checksum @6 :ChecksumPolicy;
  credits @7 :Int32;
  slotPayloadBytes @8 :Int64;
  slotMetadataBytes @9 :Int64;
}
