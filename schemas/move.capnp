@0x9c2f4e61a87d53b6;
# How a rank's place is given to another process while its lanes serve; part of the control protocol
# (control.capnp), with its errors, limits and hello. graph/rank_move.h has the steps,
# graph/kv_frame.h what goes over the link.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema");

struct KvCopy {
  # A link between two ranks beside those of their lanes, for what one of them holds in some layers and
  # lanes. A rank may copy to several, and take in from several: what it takes in of one move it holds as
  # soon as the last of its parts has come.
  epoch @0 :UInt32;          # of the plan, as on every link
  incarnation @1 :UInt32;    # the move's number; what is asked for another ends what was before
  secret @2 :UInt64;         # random, made by the coordinator for this link
  layerBegin @3 :Int32;      # that are copied; both ranks have them
  layerEnd @4 :Int32;
  address @5 :Text;          # of the rank that takes in, for the other one
  port @6 :UInt16;
  lanes @7 :List(UInt8);     # that are copied; both ranks serve them; none: all that they serve
  part @8 :UInt32;           # of the move: which of its copies this is, from 0
  parts @9 :UInt32;          # that the rank that takes in takes in all in all
  contextTokens @10 :Int32;  # the longest sequence that either of the two may hold
}

struct MoveProgress {
  step @0 :MoveStep;
  bytesDone @1 :Int64;       # while copying: of what is held; both may grow
  bytesTotal @2 :Int64;
}

enum MoveStep {
  starting @0;               # a process, which loads what the rank has loaded
  copying @1;                # while the rank serves
  switching @2;              # its lanes are fenced, the rest is copied, and they go on
}

interface MoveSink {
  # Served by whoever asked for a move.
  progressed @0 (progress :MoveProgress) -> stream;
}
