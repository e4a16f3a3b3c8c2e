// Strong ids: integers that cannot be mixed up. Plain values, any thread. An id says nothing about
// whether the thing it names still exists.
#pragma once

#include <fmt/format.h>

#include <compare>
#include <cstdint>
#include <functional>

namespace chainpump {

template <typename Tag, typename Rep>
struct Id {
  Rep value = 0;
  constexpr Id() = default;
  constexpr explicit Id(Rep v) : value(v) {}
  constexpr auto operator<=>(const Id&) const = default;
};

using StageIndex = Id<struct StageTag, int32_t>;      // position in the chain, from 0
using RankId = Id<struct RankTag, uint32_t>;          // a place in the plan: one replica of a stage
using ProcessId = Id<struct ProcessTag, uint32_t>;    // who fills one; reused after its exit
using EdgeId = Id<struct EdgeTag, uint32_t>;          // index of an edge in the plan
using PlanEpoch = Id<struct PlanEpochTag, uint32_t>;  // generation of the plan
using LinkIncarnation = Id<struct LinkTag, uint32_t>;     // generation of one link
using MicrobatchId = Id<struct MicrobatchTag, uint64_t>;  // sequencer's counter, from 1
using SequenceId = Id<struct SequenceTag, uint64_t>;      // sequencer's counter, from 1
using RequestId = Id<struct RequestTag, uint64_t>;        // gateway's counter, from 1
using KvBlockId = Id<struct KvBlockTag, int32_t>;         // index into one stage's block pool

/// A vocabulary entry. Plain because arrays of it cross kernels and files.
using TokenId = int32_t;

}  // namespace chainpump

template <typename Tag, typename Rep>
struct fmt::formatter<chainpump::Id<Tag, Rep>> : fmt::formatter<Rep> {
  template <typename Context>
  auto format(const chainpump::Id<Tag, Rep>& id, Context& context) const {
    return fmt::formatter<Rep>::format(id.value, context);
  }
};

template <typename Tag, typename Rep>
struct std::hash<chainpump::Id<Tag, Rep>> {
  size_t operator()(const chainpump::Id<Tag, Rep>& id) const { return std::hash<Rep>()(id.value); }
};
