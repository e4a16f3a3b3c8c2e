@0xd7c2e05b9a4f1638;
# What a rank counts and what it did step by step, as control.capnp's `stats` and `trace` tell it.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema");

struct RankStats {
  stage @0 :StageReport;
  links @1 :List(LinkReport);
  lanes @2 :List(LaneReport);  # those whose first stage this is
}

struct LaneReport {
  # What the lane's sequencer knows, as it was between two steps.
  lane @0 :UInt8;
  running @1 :Int32;         # sequences
  waiting @2 :Int32;         # and those that do not
  kvBlocks @3 :Int32;        # that the lane has at every stage
  kvBlocksFree @4 :Int32;    # cached ones among them
}

struct StageReport {
  stage @0 :Int32;
  layerBegin @1 :Int32;
  layerEnd @2 :Int32;
  pid @3 :Int32;
  cores @4 :List(Int32);
  weightBytesRead @5 :Int64;
  weightBytesHeld @6 :Int64;
  kvBytes @7 :Int64;
  steps @8 :UInt64;          # microbatches run
  tokens @9 :UInt64;         # positions computed
  tokensHeld @17 :UInt64;    # of them those whose KV it held already: for the stages after it only
  tokensRebuilt @18 :UInt64; # of them those that only some stages computed: what those had lost
  framesRefused @19 :UInt64; # by links, whatever was wrong with them
  framesStale @20 :UInt64;   # that were taken though they are of another epoch than the link: 0
  busyNs @10 :Int64;         # computing
  transferNs @11 :Int64;     # in links' own code
  bubbleInputNs @12 :Int64;  # idle: nothing to do had come
  bubbleCreditNs @13 :Int64; # idle: the stage after has no free slot
  bubbleOtherNs @14 :Int64;
  lanes @16 :List(UInt8);    # that the rank serves
  node @21 :Text;            # its machine in a cluster; empty: there is one
  wallNs @15 :Int64;         # since the first microbatch; the sum of the five above
}

struct StepEvents {
  events @0 :List(StepEvent);  # in order
  next @1 :UInt64;           # the number to ask for next
  lost @2 :UInt64;           # asked for, but overwritten: a rank keeps the last 8,192
  nowNs @3 :Int64;           # at the rank, on the clock of the events: monotonic, one per machine
}

struct StepEvent {
  # One microbatch through one stage. Times in nanoseconds of the rank's monotonic clock.
  microbatch @0 :UInt64;
  numTokens @1 :Int32;
  receivedNs @2 :Int64;      # at the first stage: when it was put together
  creditFromNs @3 :Int64;    # waited for a free slot of the stage after; equal if it did not
  creditUntilNs @4 :Int64;
  computeFromNs @5 :Int64;
  computeUntilNs @6 :Int64;
  sentNs @7 :Int64;
  lane @8 :UInt8;            # whose microbatch: each lane counts its own
}

struct LinkReport {
  edge @0 :UInt32;           # of the plan
  outgoing @1 :Bool;         # which end reports
  transport @2 :Text;        # what was chosen, e.g. "tcp/lo"
  frames @3 :UInt64;
  payloadBytes @4 :UInt64;
  metadataBytes @5 :UInt64;
  copiedBytes @6 :UInt64;    # payload bytes that our own code copied
  refusedFrames @7 :UInt64;
  latencyP50Us @8 :Float64;
  latencyP99Us @9 :Float64;
  blockedOnCreditNs @10 :Int64;
  lane @11 :UInt8;           # whose link of the edge
}

struct StepTotals {
  # By which a rank is found that has become slow (graph/step_account.h, graph/slow_watch.h). Since it was
  # loaded, of the steps whose usual time it knows:
  steps @0 :UInt64;
  behind @1 :UInt64;         # that took over three times that
  slow @2 :UInt64;           # over eight times
  measuredNs @3 :Int64;      # of all of them
  expectedNs @4 :Int64;
}
