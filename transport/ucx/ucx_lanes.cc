#include "transport/ucx/ucx_lanes.h"

#include <ucp/api/ucp.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "base/check.h"

namespace chainpump::transport {

// UCX has no name for this; but without a lane nothing would ever arrive.
bool lanes_stand(ucp_ep* endpoint) {
  ucp_ep_evaluate_perf_param_t message{};
  message.field_mask = UCP_EP_PERF_PARAM_FIELD_MESSAGE_SIZE;
  message.message_size = 1;
  ucp_ep_evaluate_perf_attr_t estimate{};
  estimate.field_mask = UCP_EP_PERF_ATTR_FIELD_ESTIMATED_TIME;
  return ucp_ep_evaluate_perf(endpoint, &message, &estimate) == UCS_OK &&
         std::isfinite(estimate.estimated_time);
}

// UCX 1.13 tells its choice only as text for people: lines such as
//   "lane[1]:  0:tcp/lo.0 md[0]  -> ..." and "lane[2]: cm tcp".
// Only once a message has come: before, UCX prints what it has not written yet.
std::string lanes_text(ucp_ep* endpoint) {
  char* text = nullptr;
  size_t length = 0;
  FILE* file = open_memstream(&text, &length);
  CHECK(file != nullptr);
  ucp_ep_print_info(endpoint, file);
  fclose(file);
  std::istringstream lines(std::string(text, length));
  free(text);
  std::string result;
  for (std::string line; std::getline(lines, line);) {
    const size_t lane = line.find("lane[");
    const size_t slash = line.find('/', lane);
    if (lane == std::string::npos || slash == std::string::npos) continue;
    const size_t begin = line.rfind(':', slash) + 1;
    const std::string name = line.substr(begin, slash - begin);
    const size_t end = line.find('.', slash);
    const std::string device = line.substr(slash + 1, end - slash - 1);
    const std::string shown = device == "memory" ? name : name + "/" + device;
    if (result.find(shown) != std::string::npos) continue;
    result += (result.empty() ? "" : "+") + shown;
  }
  return result.empty() ? "unknown" : result;
}

}  // namespace chainpump::transport
