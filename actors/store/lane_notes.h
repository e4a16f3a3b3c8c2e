// Where a deployment's lanes are, as its leading coordinator notes it down for those who stand by:
// they tell their own gateways, which so serve whoever leads. JSON text. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

struct LaneNotes {
  std::string numerics_id;
  std::vector<transport::rpc::LaneAddress> lanes;
  std::vector<transport::rpc::LaneNews> news;  // of each lane, or of none
};

std::string to_json_text(const LaneNotes& notes);
/// bad_file.
Result<LaneNotes> lane_notes_from_json(const std::string& text);

}  // namespace chainpump::actors
