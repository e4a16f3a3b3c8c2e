@0x8d534d46dd9201a4;
# The control protocol between the processes of a deployment, spoken as Cap'n Proto RPC over stream
# sockets. No tensor is ever inside an RPC: activations travel over links (transport/frame.h); what
# is here are ids, text, token ids and counters.
#
# A rank serves `Rank` as bootstrap on a socketpair that it inherits from whoever started it, and
# ends when that connection does. Under a service it also listens on a Unix socket, where the
# coordinator and the gateways connect; the end of such a connection is no more than that.
# Processes of a service die alone. A coordinator that has died is followed by another, on the same
# socket: whoever was connected connects again and watches anew. What it has to know of the one before
# stands in the service's folder (graph/deployment_record.h says what, and when it is written); it asks
# the agent which processes run, and each of them, by `load`, what it is. Epochs are never used twice.
# Order of calls on a rank: load, connect, then (on a sequencer's rank, of the first stage) any number
# of `attach`, one for each lane on a connection; stats at any time, and shutdown last. A call out of
# order is refused with invalid_argument. `hello` is the first of every connection.
#
# Errors. A failed call carries a Cap'n Proto exception whose reason reads `[code] message`, where
# code is one of `ErrorCode`'s names below in snake case and message is text for a person, in one
# or more lines. An exception without that form is a failure of the connection or of the library.
#
# Limits, checked before the library sees a byte: 64 MiB and 512 segments a message. Whoever
# exceeds them is disconnected. A rank's, agent's or coordinator's socket takes 64 connections at
# once; one too many, or one of another user (as the system attests), is closed. A connection has
# 1,024 calls at most that wait for their answer: overloaded.
#
# Deadlines. The caller decides how long a call may take and drops it afterwards. A request carries
# its own.

using Cxx = import "/capnp/c++.capnp";
using Plan = import "plan.capnp".Plan;
using RankStats = import "stats.capnp".RankStats;
using StepEvents = import "stats.capnp".StepEvents;
$Cxx.namespace("chainpump::schema");

const protocolVersion :UInt32 = 8;
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
  # for incoming links. `progress` is called while it lasts and is the sign of life. Again, from another
  # coordinator, with the same `rank`: the same report once it has loaded, with its lanes as they are.
  # bad_file, no_room, unimplemented (architecture, weight type), invalid_argument (another `rank`
  # than before, too).

  connect @2 (epoch :UInt32, links :List(LinkTarget), accept :List(LinkAccept)) -> ();
  # Opens the links named, of some or all of this rank's lanes: of each lane the one out and the one
  # in. Returns when all are open. A lane that had links before must have been fenced.
  # invalid_argument: one of a lane's links is missing, or it is at work, or `epoch` is older than
  # what the lane has seen.

  attach @3 (sink :LaneSink, laneId :UInt8) -> (lane :Lane);
  # Only on the rank of the lane's first stage, once it is connected, and once for each lane on a
  # connection; another lane is refused with invalid_argument. What is submitted to `lane` belongs to
  # this connection: when it ends, or `lane` is dropped, the requests that have not ended are
  # cancelled.

  stats @4 () -> (stats :RankStats);
  # Counters since load. Any time after load.

  shutdown @5 () -> ();
  # Ends what runs with disconnected, closes links cleanly, then returns; the rank exits after the reply is sent.

  watch @6 (ofLinks :Bool) -> ();
  # Never returns normally: fails with the reason once the rank can no longer serve, at once if that
  # is so already, and with cancelled when it shuts down. With `ofLinks` also when a link of a lane
  # at work has broken: disconnected. Any time after load.

  trace @7 (since :UInt64) -> (events :StepEvents);
  # What the stage did step by step, from event number `since` (0: the oldest that is there), at
  # most 4,096 events; ask again from `next`. Any time after hello; does not disturb the stage.

  fence @8 (laneId :UInt8, epoch :UInt32) -> (holdings :StageHoldings);
  # Takes a lane out of work, the first step of every repair: the first stage begins no microbatch
  # until `resume`, every stage runs what has come to it until its input has ended, then ends its
  # output. What finds no way on is void. Returns what the stage holds then. Again: the same.
  # invalid_argument: `epoch` is not newer than any the lane has seen before, or unknown lane.

  beat @10 () -> (count :UInt64);
  # How far the thread that computes has come: grows with every barrier between two parts of a layer,
  # and several times a second when it has nothing to do. Answered by another thread, at once.

  resume @9 (laneId :UInt8, epoch :UInt32, stages :List(StageHoldings)) -> ();
  # Only on the rank of the lane's first stage, when the links of all its ranks are open again:
  # requests go on, and what stages lack is computed again. `stages`: what those hold that were
  # there before; who is not named holds nothing. invalid_argument: another epoch than that of its
  # links, or it is at work.
}

interface ProgressSink {
  report @0 (bytesDone :Int64, bytesTotal :Int64) -> stream;
  # Monotonic. Values may be skipped: only the latest matters.
}

interface Lane {
  # A lane as one client uses it.
  submit @0 (requests :List(GenerateRequest)) -> ();
  # Returns when the sequencer has taken them in; each ends with a `RequestEnd`, also one that it
  # refuses (invalid_argument, overloaded). Fails for all of them at once, without ends, when the
  # rank cannot serve any more, with the reason.

  cancel @1 (requestIds :List(UInt64)) -> ();
  # Ends each of these requests with cancelled, unless it has ended. An unknown one is no error: it
  # may just have ended.
}

interface LaneSink {
  # Served by the client of a lane.
  results @0 (results :LaneResults) -> stream;
  # What all the client's requests have come to since the last call: one message a step, or less
  # while the client is slow. Up to 65,536 results wait for it; a request whose results do not fit
  # any more is ended with overloaded.
}

struct LaneResults {  # of one request in the order they were made; its end is the last
  stats @3 :LaneStats;
  tokens @0 :List(TokenResult);
  scores @1 :List(ScoreResult);
  ends @2 :List(RequestEnd);
}

struct LaneStats {
  # What a client chooses between lanes by (graph/router.h).
  numTaken @0 :UInt64;       # requests of this client so far
  numFreeBlocks @1 :Int32;   # cached ones among them
  queueRoom @2 :Int32;       # sequences that would still be queued
  waitingTokens @3 :Int64;   # of prompts, not computed yet
  numRunning @4 :Int32;      # sequences
  tokensPerS @5 :Float64;    # that the lane could take in; 0: not known yet
}

# -------------------------------------------------------------------------- agent and coordinator

interface NodeAgent {
  # Starts and ends the ranks of one machine. Served on `agent.sock` of the service's folder.
  hello @0 (protocolVersion :UInt32, build :Text) -> (protocolVersion :UInt32, build :Text, pid :Int32);
  # As Rank.hello.

  spawn @1 (rank :UInt32, run :UInt32) -> (socket :Text);
  # Starts the process of this number, which listens on `socket`, a path, when this returns. `run`
  # tells it from those that had the number before: chosen by the coordinator, and higher than theirs.
  # invalid_argument: it runs already, or `run` is not higher; no_room, internal.

  kill @2 (rank :UInt32) -> ();
  # Ends the rank, whatever it is doing; its exit is told. One that does not run is no error.

  exits @3 (sink :ExitSink) -> ();
  # Tells of every rank that ends from now on. Never returns: drop it.

  list @4 () -> (processes :List(AgentProcess));
  # Every number that was ever used, with the last process that had it. Of one that runs here the end
  # is told by `exits`, if that was called before.
}

interface ExitSink { exited @0 (rank :UInt32, run :UInt32, how :Text) -> stream; }  # "killed by SIGKILL (Killed)"

struct AgentProcess {
  rank @0 :UInt32;
  run @1 :UInt32;
  runs @2 :Bool;      # it has not ended
  socket @3 :Text;    # where it listens
}

interface Coordinator {
  # Brings a plan's ranks up and takes them down. Served on `coordinator.sock` of the service's
  # folder. It is not on the token path: its clients go to the ranks themselves.
  hello @0 (protocolVersion :UInt32, build :Text) -> (protocolVersion :UInt32, build :Text, pid :Int32);

  watch @1 (sink :DeploymentSink) -> ();
  # Tells what the deployment has come to and what it comes to. Never returns: drop it.

  stats @2 () -> (stats :List(RankStats));
  # Of every rank, in the plan's order. overloaded: not serving yet, or a rank is on its way; else why
  # it has failed.

  stop @3 () -> ();
  # Takes the deployment down; returns when every rank has left. The coordinator ends then.
}

interface DeploymentSink {
  progressed @0 (rank :UInt32, bytesDone :Int64, bytesTotal :Int64) -> stream;  # the latest counts
  serving @1 (numericsId :Text, lanes :List(LaneAddress)) -> ();
  # When it can be used, and again whenever a lane's address has changed.
  ended @2 (code :ErrorCode, message :Text) -> ();  # failed; cancelled: stopped. The last call
}

struct LaneAddress {
  # In the order of lanes.
  socket @0 :Text;    # path, of the first stage's rank
  epoch @1 :UInt32;   # since when this process is that rank; a client of an older one attaches anew
}

struct ServiceSpec {
  # What the coordinator of a service is to bring up: the file `plan` in the service's folder.
  plan @0 :Plan;
  isa @1 :Text;              # these as in LoadParams
  spinBetweenOps @2 :Bool;
  cacheFolder @3 :Text;
}

# ----------------------------------------------------------------------------------------- load

struct LoadParams {
  plan @0 :Plan;
  rank @1 :UInt32;           # this one, as graph/plan.h numbers them
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
  lanes @8 :List(LaneState); # that it serves
}

struct LaneState {
  # What a rank knows of a lane, for a coordinator that was not there (graph/lane_repair.h).
  lane @0 :UInt8;
  epoch @1 :UInt32;          # the newest that it has seen
  linked @2 :Bool;           # it was told to connect, in any epoch
  atWork @3 :Bool;           # with open links of that epoch; at the first stage: and resumed
}

# -------------------------------------------------------------------------------------- connect

struct StageHoldings {
  # What one stage holds of a lane when nothing is on its way (graph/lane_fill.h).
  stage @0 :Int32;
  sequences @1 :List(UInt64);        # ids
  heldPositions @2 :List(Int32);     # of each of them
  blocks @3 :List(Int32);            # KV blocks, of the lane, whose rows it has logged
  loggedPositions @4 :List(Int32);   # of each of them, from the block's first on
  listenPort @5 :UInt16;             # where it accepts its next link from now on, as in LoadReport
}

struct LinkTarget {
  # An outgoing link to open.
  edge @0 :UInt32;           # the link's: lane * edges + edge
  address @1 :Text;          # as the downstream rank said last
  port @2 :UInt16;
  secret @3 :UInt64;         # random, made by the coordinator for this incarnation of this link
  incarnation @4 :UInt32;    # counted by the coordinator per edge, from 1
}

struct LinkAccept {
  # An incoming link to wait for; a peer that does not know the secret is refused.
  edge @0 :UInt32;           # as in LinkTarget
  secret @1 :UInt64;
  incarnation @2 :UInt32;
}

# --------------------------------------------------------------------------------------- submit

struct GenerateRequest {
  requestId @0 :UInt64;      # the client's, unique on its connection until the request has ended
  sequenceIndex @1 :UInt32;  # of its first sequence, within the request, from 0
  prompt @2 :List(Int32);    # token ids
  sampling @3 :SamplingParams;
  score @4 :ScoreParams;
  timeoutNs @5 :Int64;       # deadline_exceeded when it has passed since the arrival; 0: none
  numSequences @6 :Int32 = 1;  # that go on from the prompt, with indices in a row, at most 64; each
                               # has an end of its own
  tenant @7 :UInt32;         # whose share of the lane it takes; chosen by the client, 0: nobody's
  cacheSalt @8 :UInt64;      # requests share cached prefixes only if theirs are equal
  priority @9 :Int32;        # higher goes first
  generated @10 :List(Int32);  # by an earlier incarnation of the lane, as if it went on; only with
                               # one sequence
  readmitted @11 :Bool;      # an earlier incarnation of the lane had taken it in: the bound of the
                             # queue does not refuse it
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
  requestId @0 :UInt64;
  sequenceIndex @1 :UInt32;
  position @2 :Int32;        # of the new token
  token @3 :Int32;
  logprob @4 :Float32;
  topLogprobs @5 :List(TokenFloat);
  finish @6 :FinishReason;
  textBytes @7 :Int64;       # after a stop string: bytes of the generated text that remain; else -1
}

struct ScoreResult {
  requestId @0 :UInt64;
  sequenceIndex @1 :UInt32;
  position @2 :Int32;        # of the token whose successor is scored
  logprob @3 :Float32;
  argmax @4 :Int32;
}

struct RequestEnd {
  requestId @0 :UInt64;
  sequenceIndex @1 :UInt32;
  code @2 :ErrorCode;        # none: it has run to its end
  message @3 :Text;
}
