@0xd7b1e4923f60a58c;
# How a node that lacks a model file gets its share of it from those that have it; part of the control
# protocol (control.capnp), with its errors, limits and hello. Pieces of a file are what its manifest says
# (models/weights/manifest.h); whoever fetches asks for a few at a time, so that neither side ever holds
# more than these, and checks each. Connections of their own: nothing else waits behind a piece.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema");

interface Weights {
  # Served by `serve`, of its model, and by every node, of the files in its folder `--models` and of what
  # its ranks have fetched. Nodes and coordinators of the cluster may ask; nothing is served but a file
  # whose whole identity the caller names.
  hello @0 (protocolVersion :UInt32, build :Text) -> (protocolVersion :UInt32, build :Text, pid :Int32);

  manifest @1 (model :ModelIdentity) -> (encoded :Data);
  # not_found: it is not at hand here.

  have @2 (model :ModelIdentity) -> (pieces :Data);
  # A bit for each piece, the lowest of a byte first. None is no error.

  read @3 (model :ModelIdentity, piece :UInt32) -> (bytes :Data);
  # At most a MiB. not_found: it has no such piece; bad_file: it cannot be read.
}

struct ModelIdentity {   # graph/plan.h
  bytes @0 :UInt64;
  fingerprint @1 :UInt64;
  contentLow @2 :UInt64;
  contentHigh @3 :UInt64;
}

struct WeightSource {    # whom to ask
  name @0 :Text;         # its certificate's
  isCoordinator @1 :Bool;
  address @2 :Text;      # numeric
}
