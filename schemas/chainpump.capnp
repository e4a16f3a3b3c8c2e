@0xb1f6a2c4d97e3580;
# The public interface of Chainpump: what a client says to the gateway, over a Unix socket today.
# Every change to this file is a compatible one: methods and fields are added, with defaults that
# mean what was meant before; none is removed, renumbered or given another meaning.
#
# Order of calls. The bootstrap capability is `Gateway`. `hello` may be called at any time and says
# who answers. `authenticate` gives a `Session`, for using the model, and an `Operator`, for looking
# after the service; a peer that may not be an operator gets a null one. Everything else hangs on
# these two. Calls may be pipelined.
#
# Who owns what. A `Generation` is owned by the client: dropping it, or losing the connection, cancels
# the request within one step, and its memory on every stage is free. A sink is the client's, and is
# held by the gateway until `done` has returned or the request was dropped.
#
# Errors. A failed call carries an exception whose reason reads `[code] message`; the codes are
# `ErrorCode` of control.capnp in snake case (invalid_argument, bad_file, no_room, overloaded,
# disconnected, deadline_exceeded, cancelled, not_found, unimplemented, internal), named by what the
# caller should do. The message is for a person, in one or more lines. Where waiting helps, that of
# `overloaded` ends in `; retry after N s`, N being a decimal number. An exception without that form
# is a failure of the connection or of the library. A generation that fails after it was admitted
# says so in `done`, in the same form.
#
# Limits, checked before the library sees a byte; whoever exceeds them is disconnected:
#   8 MiB and 512 segments a message; a message that has begun must be complete after 10 s;
#   1,024 calls that the peer has made and not released (`Finish` in the protocol);
#   while more than 256 KiB of answers wait for the peer to read them, nothing is read from it, nor
#   while calls of more than 16 MiB in all wait for their answers.
# Limits that are answered with `overloaded`:
#   64 generations and scores of one connection that have not ended, and 1,024 generations that it has
#   not dropped; 1,024 sequences, running or waiting, in all; 8 sessions, operators and watches each of
#   one connection.
# A connection beyond the 256th is closed at once.
#
# Deadlines. Each generation and score has one (24 hours if it names none) from its admission; past it
# the request ends with `deadline_exceeded`. A call that waits (`score`, `ready`, `watch`) may be
# dropped at any time, and is cancelled then.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema::api");

const interfaceVersion :UInt32 = 4;
# Raised when something is added, so that a client can tell what to expect.

interface Gateway {
  hello @0 () -> (interfaceVersion :UInt32, build :Text);
  # `build` is release and commit, e.g. "0.1.0+87c66a2".

  authenticate @1 (key :Text) -> (session :Session, operator :Operator);
  # On the Unix socket the peer must run as the same user, which the system attests, and the key is
  # empty. invalid_argument: neither is so.
}

interface Session {
  deployment @0 () -> (deployment :Deployment);
  # What is served. It does not change while the service lives.

  ready @1 () -> ();
  # Returns once requests can be served. If they never will be, fails with the reason.

  tokenize @2 (prompt :Prompt) -> (ids :List(Int32));
  # invalid_argument; not_found: a chat for a model without a template.

  generate @3 (request :GenerateRequest, sink :Sink)
           -> (generation :Generation, requestId :UInt64, seed :UInt64, promptTokens :Int32);
  # Checks everything that can be wrong, admits the request or refuses it (invalid_argument,
  # not_found, unimplemented, overloaded; disconnected and the like if the deployment has failed), and
  # returns before anything was generated. Results go to `sink`. `seed` is the request's, or the one
  # that was drawn for it: with it the same request gives the same tokens, always.

  score @4 (request :ScoreRequest) -> (logprobs :List(Float32), argmax :List(Int32));
  # One of each per target: its log-probability after the prompt and the targets before it, and the
  # likeliest token in its place. Dropping the call cancels it.
}

interface Generation {
  cancel @0 () -> ();
  # Ends the request with `cancelled`, unless it has ended. The same happens when the capability is
  # dropped.
}

interface Sink {
  # Served by the client.
  delta @0 (deltas :List(Delta)) -> stream;
  # What has become certain since the last call, at most one delta per choice, in order. Flow control:
  # the gateway makes the next call when the client keeps up, and meanwhile joins what the engine makes
  # into larger deltas. The engine does not wait for a slow client, nor does anybody else: up to
  # 256 KiB of results are kept for it, and if it falls behind by more its request, and nothing else,
  # ends with `overloaded`. May be called before `generate` has returned.

  done @1 (outcome :Outcome) -> ();
  # The last call. A `Generation` that was dropped gets none.
}

interface Operator {
  status @0 () -> (status :Status);
  watch @1 (after :UInt64, sink :EventSink) -> ();
  # Sends the events with a number above `after`, of the last 256, and then each as it happens. Never
  # returns normally: drop it. overloaded: too many watches on this connection.

  trace @2 (rank :UInt32, since :UInt64) -> (events :StepEvents);
  # What a rank did step by step, from its event number `since` (0: the oldest that is there), at most
  # 4,096 events; ask again from `next`. Ranks are numbered as they come in the status, from 0.
  # invalid_argument: there is no such rank.

  readiness @3 () -> (readiness :Readiness);
  # Whether it is ready now. Answered at once, whatever its stages do.
}

interface EventSink {
  # Served by the client, which reads at its own pace: who is slower than 256 events misses some, and
  # sees it by their numbers.
  events @0 (events :List(Event)) -> stream;
}

# --------------------------------------------------------------------------------------- requests

struct Prompt {
  union {
    text @0 :Text;            # as it is, with BOS if the model wants it
    chat @1 :List(Message);   # through the model's chat template; at most 4,096
    ids @2 :List(Int32);      # token ids, as they are
  }
  # What a client wrote never becomes a control token, except in `ids`.
}

struct Message {
  role @0 :Text;
  content @1 :Text;
  extraJson @2 :Text = "{}";  # more fields (name, tool_calls, ...), a JSON object
}

struct GenerateRequest {
  prompt @0 :Prompt;
  sampling @1 :Sampling;
  seed :union {
    draw @2 :Void;
    given @3 :UInt64;
  }
  n @4 :Int32 = 1;            # choices, 1 to 16: each draws with the seed and its own index
  priority @5 :Int32 = 0;     # higher goes first and may preempt; -100 to 100
  deadlineMs @6 :UInt64 = 0;  # from admission, at most 86,400,000; 0: that
  tenant @7 :Text;            # whose share of the service it takes and whose cached prefixes it may
                              # use: up to 64 letters, digits, '-', '_', '.' or '@'; empty: one more.
                              # Tenants of one priority are served alike. 256 names in the life of a
                              # gateway
  soFar @8 :List(ChoiceSoFar);  # none, or one for each choice: goes on where another gateway ended,
                                # with the tokens and the text that would have followed. Needs the
                                # seed that the request began with
}

struct ChoiceSoFar {
  # What the client has been told of a choice.
  tokens @0 :List(Int32);
  finish @1 :FinishReason;    # none: it goes on
}

struct Sampling {
  # graph/sampling_params.h says what each means; out of bounds is invalid_argument naming both.
  temperature @0 :Float32 = 0;        # [0, 100]; 0: always the likeliest token
  topP @1 :Float32 = 1;               # (0, 1]
  minP @2 :Float32 = 0;               # [0, 1)
  topK @3 :Int32 = 0;                 # 0: off
  repetitionPenalty @4 :Float32 = 1;  # [0.01, 100]; over prompt and output
  presencePenalty @5 :Float32 = 0;    # [-2, 2]; over output
  frequencyPenalty @6 :Float32 = 0;   # [-2, 2]; over output
  logitBias @7 :List(TokenFloat);     # at most 1,024, each token once; [-100, 100]
  maxNewTokens @8 :Int32 = 128;       # at least 1; the context may end it earlier
  ignoreEos @9 :Bool = false;
  stop @10 :List(Data);               # at most 64 of 1,024 bytes; text ends before the first
  stopTokenIds @11 :List(Int32);      # at most 1,024, beside the model's own end tokens
  numTopLogprobs @12 :Int32 = -1;     # -1: no log-probabilities; 0: the chosen token's; at most 20
}

struct TokenFloat {
  token @0 :Int32;
  value @1 :Float32;
}

struct ScoreRequest {
  prompt @0 :List(Int32);     # at least one; with the targets at most the context
  targets @1 :List(Int32);    # at least one
  deadlineMs @2 :UInt64 = 0;  # as in GenerateRequest
}

# ---------------------------------------------------------------------------------------- results

enum FinishReason { none @0; stop @1; length @2; cancelled @3; failed @4; }

struct Delta {
  requestId @0 :UInt64;
  choice @1 :Int32;
  firstIndex @2 :Int32;       # of the first token here within its choice, from 0, without gaps
  tokens @3 :List(Int32);
  text @4 :Text;              # lags behind the tokens where it may yet become part of a stop string,
                              # or of a character; stop strings never show
  logprobs @5 :List(Logprobs);  # one per token if they were asked for, else empty
  finish @6 :FinishReason;    # of the choice, with its last delta
}

struct Logprobs {
  logprob @0 :Float32;        # of the token, in the distribution before any sampling parameter
  top @1 :List(TokenFloat);   # the likeliest, most likely first
}

struct Outcome {
  union {
    usage @0 :Usage;
    error @1 :Text;           # `[code] message`
  }
}

struct Usage {
  promptTokens @0 :Int32;
  choices @1 :List(ChoiceUsage);
}

struct ChoiceUsage {
  tokens @0 :Int32;
  finish @1 :FinishReason;
  toFirstTokenNs @2 :Int64;   # from admission, as the gateway saw it
  firstToLastNs @3 :Int64;
}

# ----------------------------------------------------------------------------------------- status

enum Phase { loading @0; ready @1; failed @2; draining @3; }

struct Deployment {
  graphName @0 :Text;
  graphText @1 :Text;         # of the file that was deployed
  build @2 :Text;
  isa @3 :Text;               # what kernels are restricted to, or empty
  vocabularySize @4 :Int32;
  hasChatTemplate @5 :Bool;
  modelPath @6 :Text;
  contextTokens @7 :Int32;    # longest sequence
  maxSequences @8 :Int32;     # running at once
  prefillChunkTokens @9 :Int32;
  exactActivations @10 :Bool;
  kvType @11 :Text;
  kvBlockTokens @12 :Int32;
  kvBlocks @13 :Int32;
  stages @14 :List(PlannedStage);
  transport @15 :Text;        # asked for: "auto", "tcp", "shared_memory", "loopback"
  spin @16 :Text;             # "auto", "always", "never"
  lanes @17 :Int32;           # side by side; maxSequences and kvBlocks are of each
}

struct PlannedStage {
  name @0 :Text;
  layerBegin @1 :Int32;       # [begin, end)
  layerEnd @2 :Int32;
  threads @3 :Int32;
  replicas @4 :Int32;         # ranks; 0: as many as there are lanes
}

struct Status {
  phase @0 :Phase;
  message @1 :Text;           # of the last event
  pid @2 :Int32;              # of the gateway
  uptimeNs @3 :Int64;
  requests @4 :Int32;         # admitted and not ended
  sequences @5 :Int32;        # theirs that run or wait
  completed @6 :UInt64;       # since the start, as the next four
  failed @7 :UInt64;          # by an error other than a cancel
  cancelled @8 :UInt64;
  refused @9 :UInt64;         # before admission
  tokens @10 :UInt64;         # generated
  tokensPerSecond @11 :Float64;  # generated in the last ten seconds
  tokensHeld @12 :Int64;      # positions of all live sequences: at most what they hold of KV
  numericsId @13 :Text;       # empty before it is ready, and so are the lists
  stages @14 :List(StageStatus);
  links @15 :List(LinkStatus);
  lanes @16 :List(LaneStatus);
  stagesMissing @17 :Text;    # why the lists are empty though it is ready, or was
  readiness @18 :Readiness;
}

struct Readiness {
  # Ready means that requests are taken, and that a token has crossed every stage of some lane within
  # the last seconds: one of a request, or, where there are none, of a canary. A death clears it at
  # once.
  ready @0 :Bool;
  why @1 :Text;               # it is not: the lanes' reasons, or the service's own
  lanes @2 :List(LaneReadiness);
  coordinatorAway @3 :Text;   # why no coordinator answers; empty: one does. Requests do not need it
}

enum LaneState { starting @0; serving @1; away @2; }

struct LaneReadiness {
  lane @0 :UInt8;
  state @1 :LaneState;
  ready @2 :Bool;
  why @3 :Text;               # it is not ready: what has died, and how, or what is waited for
  awayForNs @4 :Int64 = -1;   # if it is away
  crossedAgoNs @5 :Int64 = -1;  # since a token crossed all its stages; -1: none since its last repair
  slow @6 :Text;              # which of its stages take many times as long as they did; empty: none
}

struct LaneStatus {
  lane @0 :UInt8;
  running @1 :Int32;          # sequences
  waiting @2 :Int32;          # and those in its queue
  kvBlocks @3 :Int32;         # that it has on every stage
  kvBlocksFree @4 :Int32;     # of them: held by no sequence, though some may keep a prefix
}

struct StageStatus {
  # Counters and times since it started serving.
  stage @0 :Int32;
  layerBegin @1 :Int32;
  layerEnd @2 :Int32;
  pid @3 :Int32;
  cores @4 :List(Int32);
  weightBytesRead @5 :Int64;
  weightBytesHeld @6 :Int64;
  kvBytes @7 :Int64;
  steps @8 :UInt64;           # microbatches run
  tokens @9 :UInt64;          # positions computed
  busyNs @10 :Int64;
  transferNs @11 :Int64;
  bubbleInputNs @12 :Int64;   # idle: nothing to do had come
  bubbleCreditNs @13 :Int64;  # idle: the stage after had no free slot
  idleNs @14 :Int64;          # no request was known
  lane @15 :UInt8;            # the first that the rank serves
  lanes @16 :List(UInt8);     # all of them; empty: only that one
  node @17 :Text;             # its machine in a cluster; empty: there is one
  tokensAgain @18 :UInt64;    # of the positions: computed again, as some stage had lost them
}

struct LinkStatus {
  edge @0 :UInt32;
  transport @1 :Text;
  frames @2 :UInt64;
  payloadBytes @3 :UInt64;
  metadataBytes @4 :UInt64;
  copiedBytes @5 :UInt64;
  latencyP50Us @6 :Float64;
  latencyP99Us @7 :Float64;
  lane @8 :UInt8;
}

struct StepEvents {
  events @0 :List(StepEvent);  # in order
  next @1 :UInt64;           # the number to ask for next
  lost @2 :UInt64;           # asked for, but overwritten: a stage keeps the last 8,192
  nowNs @3 :Int64;           # at the stage's process, on the clock of the events
}

struct StepEvent {
  # One microbatch through one stage. Times in nanoseconds of the machine's monotonic clock.
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

struct Event {
  number @0 :UInt64;          # from 1, without gaps
  unixMs @1 :Int64;
  phase @2 :Phase;            # of the deployment, from this event on
  message @3 :Text;
}
