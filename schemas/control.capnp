@0x8d534d46dd9201a4;
# The control protocol between a coordinator (or `chainpump run`) and one rank, spoken as Cap'n
# Proto RPC over one connection: under `run` a socketpair that the rank inherits. The rank serves
# `Rank` as bootstrap. No tensor is ever inside an RPC: activations travel over links
# (transport/frame.h); what is here are ids, text, token ids and counters.
#
# Order of calls: hello, load, connect, then (on the sequencer's rank, the first stage) any number
# of submits at once, cancel and stats at any time, and shutdown last. A call out of order is
# refused with invalid_argument. The rank ends when the connection does.
#
# Errors. A failed call carries a Cap'n Proto exception whose reason reads `[code] message`, where
# code is one of `ErrorCode`'s names below in snake case and message is text for a person, in one
# or more lines. An exception without that form is a failure of the connection or of the library.
#
# Limits, checked before the library sees a byte: 64 MiB and 512 segments a message. Whoever
# exceeds them is disconnected.
#
# Deadlines. The caller decides how long a call may take and drops it afterwards. A dropped
# `submit` is a cancelled request.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema");

const protocolVersion :UInt32 = 1;
# Raised by every change that an older peer would misunderstand. Both ends are one release, so
# unequal versions are refused at `hello`, never negotiated.

enum ErrorCode {
  # The same list as base/result.h, named by what the caller should do.
  none @0;              # never sent
  invalidArgument @1;   # the input is wrong and will stay wrong: fix it
  badFile @2;           # a file is damaged, lying or of an unknown format
  noRoom @3;            # memory, blocks or devices do not suffice: plan smaller
  overloaded @4;        # full now: retry later
  disconnected @5;      # the peer is gone: reconnect or repair
  deadlineExceeded @6;  # time ran out
  cancelled @7;         # somebody asked for it to stop
  notFound @8;          # no such thing
  unimplemented @9;     # this build cannot do it
  internal @10;         # our fault, or the system's; see the message
}

interface Rank {
  hello @0 (protocolVersion :UInt32, build :Text)
        -> (protocolVersion :UInt32, build :Text, pid :Int32);
  # First call of every connection. The rank refuses another protocol version or build
  # (release and commit) with invalid_argument naming both.

  load @1 (params :LoadParams, progress :ProgressSink) -> (report :LoadReport);
  # Maps the model file, reads and packs this stage's weights, reserves KV and slots, and listens
  # for incoming links. Once per rank. `progress` is called while it lasts and is the sign of life.
  # bad_file, no_room, unimplemented (architecture, weight type), invalid_argument.

  connect @2 (links :List(LinkTarget), accept :List(LinkAccept)) -> ();
  # Opens this rank's outgoing links and waits for its incoming ones; returns when all are open.

  submit @3 (request :GenerateRequest, sink :ResultSink) -> ();
  # Only on the rank of the lane's first stage. Runs one sequence to its end; its results go to
  # `sink` meanwhile. Returns after the last result has been taken by the sink and
  # its `done` has returned. cancelled, overloaded, invalid_argument.

  cancel @4 (requestId :UInt64) -> ();
  # Ends every sequence of the request; their submits fail with cancelled, unless they had ended.
  # An unknown request is no error: it may just have ended.

  stats @5 () -> (stats :RankStats);
  # Counters since load. Any time after load.

  shutdown @6 () -> ();
  # Cancels what runs, closes links cleanly, then returns; the rank exits after the reply is sent.

  watch @7 () -> ();
  # Never returns normally: fails with the reason once the rank can no longer serve, at once if that
  # is so already, and with cancelled when it shuts down. disconnected: a link broke, and the
  # neighbour's death may be the cause. Any time after load.

  trace @8 (since :UInt64) -> (events :StepEvents);
  # What the stage did step by step, from event number `since` (0: the oldest that is there), at
  # most 4,096 events; ask again from `next`. Any time after hello; does not disturb the stage.
}

interface ProgressSink {
  report @0 (bytesDone :Int64, bytesTotal :Int64) -> stream;
  # Monotonic. Values may be skipped: only the latest matters.
}

interface ResultSink {
  # Served by the caller of `submit`; dies with that call. Results come in the order they were
  # made, several per call when the connection is busy.
  tokens @0 (results :List(TokenResult)) -> stream;
  scores @1 (results :List(ScoreResult)) -> stream;
  done @2 () -> ();  # nothing follows; returning from it says that everything has been taken
}

# ----------------------------------------------------------------------------------------- load

struct LoadParams {
  plan @0 :Plan;
  stage @1 :Int32;           # which of plan.stages this rank is
  isa @2 :Text;              # instruction set to restrict kernels to; empty: the best there is
  listenAddress @3 :Text;    # numeric address of the interface for incoming links
  spinBetweenOps @4 :Bool;   # whether compute threads may spin; false where threads outnumber cores
  cacheFolder @5 :Text;      # on the rank's machine, for repacked weights between starts; empty: none
}

struct LoadReport {
  numericsId @0 :Text;       # equal on every rank of a lane, or the lane is refused
  weightBytesRead @1 :Int64; # of the file
  weightBytesHeld @2 :Int64; # packed, in memory
  kvBytes @3 :Int64;
  listenAddress @4 :Text;    # where incoming links are accepted
  listenPort @5 :UInt16;     # 0: this transport needs no port
  vocabularySize @6 :Int32;
  hiddenSize @7 :Int32;
}

struct Plan {
  # Mirrors graph/plan.h; the meaning of each field stands there.
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
}

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
  deviceKind @6 :Text;       # "cpu"
  cores @7 :List(Int32);
  numThreads @8 :Int32;
  weightBytes @9 :Int64;
  kvBytes @10 :Int64;
  slotBytes @11 :Int64;
  predictedDecodeS @12 :Float64;
  predictedPrefillS @13 :Float64;
}

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

# -------------------------------------------------------------------------------------- connect

struct LinkTarget {
  # An outgoing link to open.
  edge @0 :UInt32;
  address @1 :Text;          # from the downstream rank's LoadReport
  port @2 :UInt16;
  secret @3 :UInt64;         # random, made by the coordinator for this incarnation of this link
  incarnation @4 :UInt32;    # counted by the coordinator per edge, from 1
}

struct LinkAccept {
  # An incoming link to wait for; a peer that does not know the secret is refused.
  edge @0 :UInt32;
  secret @1 :UInt64;
  incarnation @2 :UInt32;
}

# --------------------------------------------------------------------------------------- submit

struct GenerateRequest {
  requestId @0 :UInt64;      # chosen by the caller, unique in its lifetime; dies with the request
  sequenceIndex @1 :UInt32;  # within the request, from 0; one submit per sequence
  prompt @2 :List(Int32);    # token ids
  sampling @3 :SamplingParams;
  score @4 :ScoreParams;
}

struct SamplingParams {
  # Mirrors graph/sampling_params.h; bounds stand there and are checked by the rank.
  temperature @0 :Float32;
  topP @1 :Float32;
  minP @2 :Float32;
  topK @3 :Int32;
  repetitionPenalty @4 :Float32;
  presencePenalty @5 :Float32;
  frequencyPenalty @6 :Float32;
  logitBias @7 :List(TokenFloat);
  seed @8 :UInt64;
  maxNewTokens @9 :Int32;
  ignoreEos @10 :Bool;
  stop @11 :List(Data);      # bytes: a stop string need not be whole UTF-8 characters
  stopTokenIds @12 :List(Int32);
  numTopLogprobs @13 :Int32; # -1: none
}

struct TokenFloat {
  token @0 :Int32;
  value @1 :Float32;
}

struct ScoreParams {
  firstPosition @0 :Int32;   # the first whose next token is scored; -1: no scoring
  fullPath @1 :Text;         # .npy file for all log-probabilities, or empty
}

enum FinishReason { none @0; stop @1; length @2; cancelled @3; failed @4; }

struct TokenResult {
  sequenceId @0 :UInt64;     # chosen by the sequencer; dies with the sequence
  position @1 :Int32;        # of the new token
  token @2 :Int32;
  logprob @3 :Float32;
  topLogprobs @4 :List(TokenFloat);
  finish @5 :FinishReason;
  textBytes @6 :Int64;       # after a stop string: bytes of the generated text that remain; else -1
}

struct ScoreResult {
  sequenceId @0 :UInt64;
  position @1 :Int32;        # of the token whose successor is scored
  logprob @2 :Float32;
  argmax @3 :Int32;
}

# ---------------------------------------------------------------------------------------- stats

struct RankStats {
  stage @0 :StageReport;
  links @1 :List(LinkReport);
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
  busyNs @10 :Int64;         # computing
  transferNs @11 :Int64;     # in links' own code
  bubbleInputNs @12 :Int64;  # idle: nothing to do had come
  bubbleCreditNs @13 :Int64; # idle: the stage after has no free slot
  bubbleOtherNs @14 :Int64;
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
}

struct LinkReport {
  edge @0 :UInt32;
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
}
