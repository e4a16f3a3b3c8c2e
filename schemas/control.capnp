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
# Machines. A deployment may lie on several nodes, with an agent each, and what is a path here
# ("socket") may be a network address: that is TLS with the cluster's certificates at both ends
# (transport/rpc/channel.h, cluster.capnp). Agents and ranks serve a `coordinator` there, in which
# the gateways beside it are counted, whose name is compared with its certificate's; nobody else.
# Terms. Where two coordinators stand in for each other, each that leads has a term, greater than that
# of any before; it is 0 where there is only ever one. A rank or agent that has heard of a term takes
# no order from a connection of an older one: cancelled. So whoever was stopped, and wakes when another
# leads, changes nothing. It is told with `Rank.load` and `NodeAgent.lead`.
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
using Fault = import "fault.capnp".Fault;
using Move = import "move.capnp";
using Plan = import "plan.capnp".Plan;
using GenerateRequest = import "requests.capnp".GenerateRequest;
using RankStats = import "stats.capnp".RankStats;
using ScoreResult = import "requests.capnp".ScoreResult;
using StepEvents = import "stats.capnp".StepEvents;
using StepTotals = import "stats.capnp".StepTotals;
using TokenResult = import "requests.capnp".TokenResult;
using WeightSource = import "weights.capnp".WeightSource;
$Cxx.namespace("chainpump::schema");

const protocolVersion :UInt32 = 18;
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

  beat @10 () -> (count :UInt64, links :List(LinkBeat), steps :StepTotals);
  # How far the thread that computes has come: grows with every barrier between two parts of a layer,
  # and several times a second when it has nothing to do. Answered by another thread, at once. `links`:
  # of the links that are open, as they were when that thread looked at them last. `steps`: what the rank's
  # steps have taken by then.

  resume @9 (laneId :UInt8, epoch :UInt32, stages :List(StageHoldings)) -> ();
  # Only on the rank of the lane's first stage, when the links of all its ranks are open again:
  # requests go on, and what stages lack is computed again. `stages`: what those hold that were
  # there before; who is not named holds nothing. invalid_argument: another epoch than that of its
  # links, or it is at work.

  arm @11 (fault :Fault) -> ();
  # For tests of what the others make of it, `chainpump chaos`: from now on the rank does this to itself,
  # in place of what it was told before. Any time after load. Whoever may call it could end the rank as
  # well, or stop it. What it died of it says on standard error. invalid_argument: counts and times
  # beyond what transport/armed_fault.h allows.

  takeIn @12 (copy :Move.KvCopy) -> (address :Text, port :UInt16);
  # Of a rank that has loaded and was never told to connect: awaits what another copies to it, in place of
  # what was awaited of another move. When all has come it holds that, and is fenced before it is connected.
  # Returns where the other connects to. invalid_argument: it holds something; layers or lanes not its own.

  copy @13 (copy :Move.KvCopy, progress :ProgressSink) -> ();
  # Copies what the rank holds to one that takes it in, beside its work. Returns when little is left; goes
  # on with what is added. Of another move: that before is given up. disconnected: the link has broken.

  finishCopy @14 () -> ();
  # When all lanes of the rank are fenced: copies the rest, and returns when all that it copies to have it.
  # invalid_argument: there is no copy, or a lane is at work; disconnected.
}

struct LinkBeat {
  # By which a link is found over which nothing comes any more (graph/link_watch.h).
  edge @0 :UInt32;           # the link's, as in LinkTarget
  incarnation @1 :UInt32;
  isSender @2 :Bool;         # of frames
  spoken @3 :UInt64;         # the sender: frames sent; the receiver: credits given back
  heard @4 :UInt64;          # the same of the other end, as far as it has arrived
  lookedAgoNs @5 :Int64;     # since it last looked whether anything has
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
  # while the client is slow. Once a second at least, while tokens come through the lane's stages, with
  # its stats alone if there is nothing else. Up to 65,536 results wait for it; a request whose results
  # do not fit any more is ended with overloaded.
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
  epoch @6 :UInt32;          # of the lane; 0: nothing is said here
  crossedAgoNs @7 :Int64 = -1;  # since a token last came through all stages in this epoch; -1: none has
}

# -------------------------------------------------------------------------- agent and coordinator

interface NodeAgent {
  # Starts and ends the ranks of one machine. Served on `agent.sock` of the service's folder, or by a
  # node at the address that it joined with. A node's ranks end 30 s after it has lost its cluster.
  hello @0 (protocolVersion :UInt32, build :Text) -> (protocolVersion :UInt32, build :Text, pid :Int32);
  # As Rank.hello.

  spawn @1 (rank :UInt32, run :UInt32) -> (socket :Text);
  # Starts the process of this number, which listens on `socket` when this returns. `run`
  # tells it from those that had the number before: chosen by the coordinator, and higher than theirs.
  # invalid_argument: it runs already, or `run` is not higher; no_room, internal.

  kill @2 (rank :UInt32) -> ();
  # Ends the rank, whatever it is doing; its exit is told. One that does not run is no error.

  exits @3 (sink :ExitSink) -> ();
  # Tells of every rank that ends from now on. Never returns: drop it.

  list @4 () -> (processes :List(AgentProcess));
  # Every number that was ever used, with the last process that had it. Of one that runs here the end
  # is told by `exits`, if that was called before.

  beat @5 () -> ();
  # Answered at once, by the thread that carries out the other calls: whoever supervises the agent tells
  # by it whether that hangs.

  lead @6 (term :UInt64) -> ();
  # From now on this connection is of that term, and `spawn` and `kill` are refused to those of older
  # ones. cancelled: it is older itself.
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

  beat @4 () -> ();
  # Answered by the thread that decides, in its turn: whoever supervises the coordinator tells by it whether
  # that hangs. While that thread waits for the store, up to 10 s, another answers at once: a slow disk is
  # no hang, and a successor would have to write to the same.

  move @5 (rank :UInt32, sink :Move.MoveSink) -> ();
  # Gives the rank's place to another process: its standby, if one has loaded, else one that is
  # started for that. What the rank holds is copied, its requests go on. Returns when its lanes serve
  # again; with an error the rank has kept its place. not_found: there is no such rank; overloaded: it
  # is being repaired, or another moves; no_room; unimplemented. Goes on if the caller does not wait.

  change @6 (spec :ServiceSpec, sink :Move.MoveSink) -> ();
  # Has the deployment go on by another plan, in place or by new ranks (graph/changing_deployment.h). Of
  # `spec` the plan, `spinBetweenOps`, `graph` and `graphText` count, and `number`: that of the one in force.
  # Returns when all lanes serve by it; with an error the old one goes on. overloaded: another number, or
  # something is being repaired or moved; no_room; invalid_argument, unimplemented: it cannot be changed so.
  # Goes on if the caller does not wait.

  trace @7 (rank :UInt32, since :UInt64) -> (events :StepEvents);
  # Rank.trace of the process that has the rank's place now. overloaded: none has, or another leads.
}

interface DeploymentSink {
  progressed @0 (rank :UInt32, bytesDone :Int64, bytesTotal :Int64) -> stream;  # the latest counts
  serving @1 (numericsId :Text, lanes :List(LaneAddress)) -> ();
  # When it can be used, and again whenever a lane's address has changed.
  ended @2 (code :ErrorCode, message :Text) -> ();  # failed; cancelled: stopped. The last call
  lanes @3 (lanes :List(LaneNews)) -> ();
  # Of every lane, once the deployment serves, and at once when one is away or serves again.
}

struct LaneAddress {
  # In the order of lanes.
  socket @0 :Text;    # of the first stage's rank
  epoch @1 :UInt32;   # since when this process is that rank; a client of an older one attaches anew
  node @2 :Text;      # on whose machine it is, where that is another; its certificate's name
}

struct LaneNews {
  epoch @0 :UInt32;      # of the lane: each repair has a new one
  serves @1 :Bool;
  why @2 :Text;          # it does not: what has died, and how
  awayForNs @3 :Int64;   # if it does not
  slow @4 :Text;         # which of its ranks have become slow; empty: none
}

struct ServiceSpec {
  # What the coordinator of a service is to bring up: the file `plan` in the service's folder.
  plan @0 :Plan;
  isa @1 :Text;              # these as in LoadParams
  spinBetweenOps @2 :Bool;
  cacheFolder @3 :Text;
  certificates @4 :Text;     # folder; empty: this machine alone
  node @5 :Text;             # this machine's name among the plan's nodes; empty: it has none
  store @6 :StoreSpec;       # that coordinators share
  graph @7 :Text;            # a graph file that says every key as it is in force, flags counted in
  graphText @8 :Text;        # the graph file as its user has written it
  number @9 :UInt32;         # of changes that led to this one
  weights @10 :WeightSource;  # the `serve` that the model file is with
}

struct StoreSpec {           # actors/store/etcd_client.h
  address @0 :Text;          # empty: each has its own, in the service's folder
  prefix @1 :Text;           # of the deployment's keys
  authority @2 :Text;        # files; empty: no TLS
  certificate @3 :Text;
  key @4 :Text;
}

# ----------------------------------------------------------------------------------------- load

struct LoadParams {
  plan @0 :Plan;
  rank @1 :UInt32;           # this one, as graph/plan.h numbers them
  isa @2 :Text;              # instruction set to restrict kernels to; empty: the best there is
  listenAddress @3 :Text;    # numeric address of the interface for incoming links; empty: the one
                             # that its agent gave it. Any other off the loopback is refused
  spinBetweenOps @4 :Bool;   # whether compute threads may spin; false where threads outnumber cores
  cacheFolder @5 :Text;      # on the rank's machine, for repacked weights between starts; empty: none
  term @6 :UInt64;           # of the coordinator: later calls of older ones' connections are refused
  weights @7 :List(WeightSource);  # who may have the model file, for a node that lacks it
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
  linked @2 :Bool;           # it was told to connect, in any epoch, or has taken in a copy
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
  identities @6 :List(UInt64);       # of each sequence: its request's, as in GenerateRequest
  indexes @7 :List(UInt32);          # of each sequence: sequenceIndex
  tables @8 :List(Int32);            # of each sequence: the blocks, of the lane, in which its positions
                                     # lie; one after the other
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

struct RequestEnd {
  requestId @0 :UInt64;
  sequenceIndex @1 :UInt32;
  code @2 :ErrorCode;        # none: it has run to its end
  message @3 :Text;
}
