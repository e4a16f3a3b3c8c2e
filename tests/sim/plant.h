// Bugs to plant, one at a time, at the seams of the simulated cluster: each is what a core or a
// shell would do to the others if it had that bug. They show that the simulator's invariants find
// something. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

namespace chainpump::sim {

enum class Plant : uint8_t {
  none,
  credit_lost_on_cancel,  // the slot of a frame that releases a cancelled sequence gives none back
  block_freed_in_flight,  // a frame's releases are done when it arrives, before those ahead of it
  copy_missed,            // a stage leaves out the block copies
  position_off_by_one,    // a sequence that begins behind shared blocks begins one too early
  salt_dropped,           // all tenants share the prefix cache
  philox_position_lost,   // what was generated before a preemption counts as prompt afterwards
  tenant_starved,         // one tenant's weight gets lost on the way
  frame_run_twice,        // a frame that was stalled is sent again
  release_lost,           // a stage now and then forgets to forget
  end_of_lane_forgotten,  // a request on its way to a lane that ends is not told of it
  priority_inverted,      // the lowest goes first, and takes the blocks of those who rank higher
  double_delivery,        // now and then a result is passed on twice
  stale_result,           // after a repair the last result from before it comes once more
  lost_said_held,         // a rank that was lost is said to hold what it held
  held_overstated,        // a stage says that it holds one position more than it does
  log_hole,               // a stage says that it has logged one position more than it has
  log_dropped,            // the log drops rows while some of them will be asked for
  log_outlived,           // what was logged of a block outlives its sequence
  strangers_kept,         // a stage does not speak of sequences that the sequencer has forgotten
  described_once,         // a sequence that is computed again is not described again
};

inline constexpr std::array<std::pair<Plant, std::string_view>, 20> kPlants = {{
    {Plant::credit_lost_on_cancel, "credit-lost-on-cancel"},
    {Plant::block_freed_in_flight, "block-freed-in-flight"},
    {Plant::copy_missed, "copy-missed"},
    {Plant::position_off_by_one, "position-off-by-one"},
    {Plant::salt_dropped, "salt-dropped"},
    {Plant::philox_position_lost, "philox-position-lost"},
    {Plant::tenant_starved, "tenant-starved"},
    {Plant::frame_run_twice, "frame-run-twice"},
    {Plant::release_lost, "release-lost"},
    {Plant::end_of_lane_forgotten, "end-of-lane-forgotten"},
    {Plant::priority_inverted, "priority-inverted"},
    {Plant::double_delivery, "double-delivery"},
    {Plant::stale_result, "stale-result"},
    {Plant::lost_said_held, "lost-said-held"},
    {Plant::held_overstated, "held-overstated"},
    {Plant::log_hole, "log-hole"},
    {Plant::log_dropped, "log-dropped"},
    {Plant::log_outlived, "log-outlived"},
    {Plant::strangers_kept, "strangers-kept"},
    {Plant::described_once, "described-once"},
}};

/// By its name on the command line.
inline std::optional<Plant> find_plant(std::string_view name) {
  for (const auto& [plant, its_name] : kPlants)
    if (its_name == name) return plant;
  return std::nullopt;
}

}  // namespace chainpump::sim
