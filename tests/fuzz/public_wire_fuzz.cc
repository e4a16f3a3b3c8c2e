// Whatever a client or a gateway of another kind sends over the public interface
// (schemas/chainpump.capnp): requests, results and reports.
#include "gateway/rpc/convert.h"
#include "tests/fuzz/wire_fuzz.h"

namespace {

using namespace chainpump;
namespace api = schema::api;

constexpr uint64_t kBytesMax = 8 << 20;  // as the gateway's

template <typename Schema>
void check_same(capnp::MessageReader& message) {
  fuzz::check_same_again<Schema>(
      message, [](typename Schema::Reader in) { return gateway::rpc::read(in); },
      [](typename Schema::Builder out, const auto& in) { gateway::rpc::write(out, in); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  fuzz::with_message({data + 1, size - 1}, kBytesMax, [&](capnp::MessageReader& message) {
    switch (data[0] % 9) {
      case 0:
        return check_same<api::GenerateRequest>(message);
      case 1:
        return check_same<api::ScoreRequest>(message);
      case 2:
        return check_same<api::Prompt>(message);
      case 3:
        return check_same<api::Delta>(message);
      case 4:
        return check_same<api::Outcome>(message);
      case 5:
        return check_same<api::Deployment>(message);
      case 6:
        return check_same<api::Status>(message);
      case 7:
        return check_same<api::Event>(message);
      case 8:
        return check_same<api::Readiness>(message);
    }
  });
  return 0;
}
