// Whatever a coordinator or a rank of another kind sends over the control protocol
// (schemas/control.capnp): plans, requests, results and reports.
#include "tests/fuzz/wire_fuzz.h"
#include "transport/rpc/convert.h"

namespace {

using namespace chainpump;
namespace rpc = transport::rpc;
namespace schema = chainpump::schema;

constexpr uint64_t kBytesMax = 64 << 20;  // as a rank's

template <typename Schema, typename Plain>
void check_same(capnp::MessageReader& message) {
  fuzz::check_same_again<Schema>(
      message,
      [](typename Schema::Reader in) {
        Plain out;
        rpc::read(in, out);
        return out;
      },
      [](typename Schema::Builder out, const Plain& in) { rpc::write(out, in); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  fuzz::with_message({data + 1, size - 1}, kBytesMax, [&](capnp::MessageReader& message) {
    switch (data[0] % 15) {
      case 0:
        return check_same<schema::LoadParams, rpc::LoadParams>(message);
      case 1:
        return check_same<schema::GenerateRequest, rpc::GenerateRequest>(message);
      case 2:
        return check_same<schema::LinkTarget, rpc::LinkTarget>(message);
      case 3:
        return check_same<schema::LoadReport, rpc::LoadReport>(message);
      case 4:
        return check_same<schema::TokenResult, rpc::TokenResult>(message);
      case 5:
        return check_same<schema::ScoreResult, rpc::ScoreResult>(message);
      case 6:
        return check_same<schema::RankStats, rpc::RankStats>(message);
      case 7:
        return check_same<schema::StepEvents, StepEvents>(message);
      case 8:
        return check_same<schema::RequestEnd, rpc::RequestEnd>(message);
      case 9:
        return check_same<schema::ServiceSpec, rpc::ServiceSpec>(message);
      case 10:
        return check_same<schema::StageHoldings, rpc::StageHoldings>(message);
      case 11:
        return check_same<schema::LaneAddress, rpc::LaneAddress>(message);
      case 12:
        return check_same<schema::LaneNews, rpc::LaneNews>(message);
      case 13:
        return check_same<schema::KvCopy, rpc::KvCopy>(message);
      case 14:
        return check_same<schema::MoveProgress, rpc::MoveProgress>(message);
    }
  });
  return 0;
}
