@0xb3c1e07a5d94f218;
# What is submitted to a lane over the control protocol (control.capnp), and what comes of it.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("chainpump::schema");

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
  identity @12 :UInt64;      # random, chosen by the client, and the same when it is submitted again to
                             # a later incarnation of the lane: what ranks hold of it is its own
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
