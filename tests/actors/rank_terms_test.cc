// What a node's rank makes of a coordinator's words: its own machine's paths, cores and network.
#include <boost/test/unit_test.hpp>

#include "actors/rank.h"
#include "tests/fakes/why.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

rpc::LoadParams params_of(const char* model, const char* listen) {
  rpc::LoadParams params{.listen_address = listen, .cache_folder = "/theirs"};
  params.plan.model_path = model;
  params.plan.stages.resize(2);
  params.plan.stages[0].devices = {{.kind = "cpu", .cores = {0, 1}, .node = "a"}};
  params.plan.stages[1].devices = {{.kind = "cpu", .cores = {2}, .node = "b"}};
  return params;
}

BOOST_AUTO_TEST_SUITE(rank_terms)

BOOST_AUTO_TEST_CASE(links_are_where_the_agent_says_or_on_the_loopback) {
  const RankTerms terms{.node = "b", .data_address = "10.0.0.2"};
  const std::tuple<const char*, RankTerms, const char*> kTable[] = {
      {"", terms, "10.0.0.2"},         {"", {}, "127.0.0.1"},
      {"10.0.0.2", terms, "10.0.0.2"}, {"127.0.0.1", terms, "127.0.0.1"},
      {"10.0.0.3", terms, nullptr},    {"10.0.0.2", {}, nullptr},
      {"0.0.0.0", terms, nullptr},
  };
  for (const auto& [asked, with, expected] : kTable) {
    rpc::LoadParams params = params_of("/proc/self/exe", asked);
    const Status adapted = adapt_to(with, params);
    BOOST_TEST(adapted.ok() == (expected != nullptr), asked);
    if (expected != nullptr) BOOST_TEST(params.listen_address == expected);
    if (expected == nullptr)
      BOOST_TEST(fakes::why(adapted).find("not on this machine's trusted network") !=
                 std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(cores_and_folders_are_this_machines) {
  rpc::LoadParams params = params_of("/nowhere/m.gguf", "");
  BOOST_TEST(adapt_to({.node = "b", .cache_folder = "/ours"}, params).ok());
  BOOST_TEST(params.cache_folder == "/ours");
  BOOST_TEST(params.plan.stages[0].devices[0].cores.empty());
  BOOST_TEST(params.plan.stages[1].devices[0].cores.size() == 1u);
  params = params_of("/nowhere/m.gguf", "");
  BOOST_TEST(adapt_to({}, params).ok());
  BOOST_TEST(params.plan.stages[0].devices[0].cores.size() == 2u);
  BOOST_TEST(params.cache_folder == "/theirs");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::actors
