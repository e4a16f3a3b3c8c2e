@0xb7e1c35d02f96a84;
# What a rank can be told to do to itself, by control.capnp's `arm`.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema");

struct Fault {
  # transport/armed_fault.h says what becomes of each.
  kind @0 :FaultKind;
  point @1 :FaultPoint;      # of a death
  count @2 :UInt32 = 1;      # of a death: at which passing of the point; damage: of which frame sent
  factor @3 :Float64 = 1;    # slowness: how many times as long a step takes
  lastsNs @4 :Int64;         # slowness, silence
  ofInput @5 :Bool;          # silence: what comes over links is not looked at
  ofOutput @6 :Bool;         # silence: what is to be sent over links is held back
  ofHeader @7 :Bool;         # damage: of the frame's header, else of its body
}

enum FaultKind { nothing @0; death @1; slowness @2; silence @3; damage @4; }

enum FaultPoint {
  afterReceive @0;
  beforeSend @1;
  midFrame @2;
  afterKvWrite @3;
  fencing @4;                # and the next two: of a repair
  connecting @5;
  filling @6;
}
