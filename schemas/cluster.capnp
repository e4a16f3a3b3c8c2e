@0xe3a9d15c70b2f846;
# How machines become nodes of a deployment; part of the control protocol (control.capnp), with its
# errors, limits and hello.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema");

interface Cluster {
  # How a machine becomes a node of a deployment. Served by `serve` where it listens on a network.
  hello @0 (protocolVersion :UInt32, build :Text) -> (protocolVersion :UInt32, build :Text, pid :Int32);

  join @1 (node :NodeInfo) -> ();
  # From when it returns until the connection ends, whoever called it is a node; once on a connection.
  # Coordinators connect to its agent. invalid_argument: its certificate is of another name, or what
  # it says makes no sense; overloaded: there is a node of that name, which may be about to be missed.
}

struct NodeInfo {
  name @0 :Text;
  labels @1 :List(Text);     # 64 at most, each as a name
  agent @2 :Text;            # numeric network address of its agent
  dataAddress @3 :Text;      # numeric, of its interface to the trusted network; empty: it has none
  cores @4 :List(Int32);     # that it gives, and what they can do, as graph/cost_model.h
  memoryBytes @5 :Int64;
  readBytesPerS @6 :List(Float64);
  int8OpsPerS @7 :Float64;
  f32OpsPerS @8 :Float64;
  bf16OpsPerS @9 :Float64;
  weights @10 :Text;         # numeric network address where it serves Weights (weights.capnp)
}

struct NodeList { nodes @0 :List(NodeInfo); }  # the file `nodes` in the service's folder: those that have joined
