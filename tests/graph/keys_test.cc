#include "graph/keys.h"

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <iterator>

namespace chainpump::graph {
namespace {

std::string file(const char* path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The committed files are what the table gives; mend them with graph_docs.
BOOST_AUTO_TEST_CASE(CommittedFilesMatchTheTable) {
  BOOST_TEST(file("schemas/graph.schema.json") == graph_json_schema());
  BOOST_TEST(file("docs/graph.md") == graph_markdown());
}

BOOST_AUTO_TEST_CASE(Explains) {
  BOOST_TEST(explain_key("kv.type").value().find("f32, bf16, f16, int8") != std::string::npos);
  BOOST_TEST(explain_key("stages").value().find("stages[].op") != std::string::npos);
  BOOST_TEST(!explain_key("kv.typ").has_value());
}

}  // namespace
}  // namespace chainpump::graph
