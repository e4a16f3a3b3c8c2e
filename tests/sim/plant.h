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
  stale_epoch_returned,   // the return edge takes frames of an earlier link
  record_stale,           // a coordinator takes over by the record before the last
  act_before_write,       // a coordinator acts before what it does is written down
  epoch_reused,           // a new coordinator begins with the epoch that was used last
  resumed_again,          // a resume whose answer is lost is done twice
  zombie_believed,        // what an earlier process of a number answers counts as the next one's
  fence_forgotten,        // a coordinator that has taken over fences nobody
  old_answer_believed,    // the answer to an earlier fence counts as the last one's
  holdings_kept,          // what stages said in an earlier repair is told again
  first_not_told,         // clients do not hear that a lane has another first rank
  so_far_forgotten,       // a request that goes on elsewhere begins anew
  restarts_uncounted,     // a new coordinator forgets how many ends there were
  gap_not_discounted,     // who was late blames others for its own gap
  detach_forgotten,       // what a client ran that has gone runs on
};

inline constexpr std::array<std::pair<Plant, std::string_view>, 34> kPlants = {{
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
    {Plant::stale_epoch_returned, "stale-epoch-returned"},
    {Plant::record_stale, "record-stale"},
    {Plant::act_before_write, "act-before-write"},
    {Plant::epoch_reused, "epoch-reused"},
    {Plant::resumed_again, "resumed-again"},
    {Plant::zombie_believed, "zombie-believed"},
    {Plant::fence_forgotten, "fence-forgotten"},
    {Plant::old_answer_believed, "old-answer-believed"},
    {Plant::holdings_kept, "holdings-kept"},
    {Plant::first_not_told, "first-not-told"},
    {Plant::so_far_forgotten, "so-far-forgotten"},
    {Plant::restarts_uncounted, "restarts-uncounted"},
    {Plant::gap_not_discounted, "gap-not-discounted"},
    {Plant::detach_forgotten, "detach-forgotten"},
}};

/// By its name on the command line.
inline std::optional<Plant> find_plant(std::string_view name) {
  for (const auto& [plant, its_name] : kPlants)
    if (its_name == name) return plant;
  return std::nullopt;
}

}  // namespace chainpump::sim
