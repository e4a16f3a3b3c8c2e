// What a lane's sequencer is told, from the plan: its limits, and what a step should cost until
// steps have been measured. Pure; any thread. Not here: what the stages are told (rank_stage.cc).
#pragma once

#include "graph/plan.h"
#include "graph/sequencer.h"

namespace chainpump::actors {

/// Of a plan that from_wire() has checked. Where ranks serve several lanes, what prefill may add to
/// the time between two tokens is divided among them: each lane's prefill delays all of them.
graph::SequencerOptions sequencer_options(const graph::Plan& plan, graph::LaneId lane,
                                          int32_t vocabulary_size);

/// A step of the slowest stage, as the plan predicts it: the line through one token and the largest
/// prefill chunk. Attention is left out, as the prediction knows no prefix.
graph::StepCost::Coefficients predicted_cost(const graph::Plan& plan);

}  // namespace chainpump::actors
