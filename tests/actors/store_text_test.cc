// What is written to a shared store beside the record, and how the store is named.
#include <boost/test/unit_test.hpp>

#include "actors/store/base64.h"
#include "actors/store/etcd_client.h"
#include "actors/store/lane_notes.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {

using fakes::why;

BOOST_AUTO_TEST_SUITE(store_text)

BOOST_AUTO_TEST_CASE(base64) {
  for (const auto& [bytes, text] :
       std::vector<std::pair<std::string, std::string>>{{"", ""},
                                                        {"f", "Zg=="},
                                                        {"fo", "Zm8="},
                                                        {"foo", "Zm9v"},
                                                        {"foob", "Zm9vYg=="},
                                                        {std::string("\xff\0\xfe", 3), "/wD+"}}) {
    BOOST_TEST(to_base64(bytes) == text);
    BOOST_TEST((from_base64(text) == bytes));
  }
  for (const char* text : {"Z", "Zg", "Zg=", "Zh==", "Z===", "====", "Zg==Zg==", "Zm9*", "=m9v"})
    BOOST_TEST(!from_base64(text), text);
}

BOOST_AUTO_TEST_CASE(notes_of_lanes) {
  const LaneNotes notes{.numerics_id = "one way",
                        .lanes = {{"10.0.0.1:7", 4, "b"}, {"10.0.0.2:9", 1, "c"}},
                        .news = {{4, false, "a \"rank\" died", 5'000'000}, {1, true, "", 0}}};
  const std::string good = to_json_text(notes);
  const auto read = lane_notes_from_json(good);
  BOOST_TEST_REQUIRE(read.ok(), why(read));
  BOOST_TEST(read->numerics_id == notes.numerics_id);
  BOOST_TEST(read->lanes.size() == 2u);
  BOOST_TEST(read->lanes[0].socket == "10.0.0.1:7");
  BOOST_TEST(read->lanes[0].epoch == 4u);
  BOOST_TEST(read->lanes[1].node == "c");
  BOOST_TEST(!read->news[0].serves);
  BOOST_TEST(read->news[0].why == "a \"rank\" died");
  BOOST_TEST(read->news[0].away_for_ns == 5'000'000);
  BOOST_TEST(read->news[1].serves);
  for (const std::string& text : {std::string(), std::string("[]"), std::string("{}"),
                                  std::string(R"({"numerics_id": "", "lanes": [], "news": [{}]})"),
                                  good.substr(1), good.substr(0, good.size() - 2)})
    BOOST_TEST((lane_notes_from_json(text).error().code == ErrorCode::bad_file), text);
}

BOOST_AUTO_TEST_CASE(addresses) {
  const auto good = parse_etcd_address("etcd://127.0.0.1:2379,b.example:1,[::1]:65535/chainpump/x");
  BOOST_TEST_REQUIRE(good.ok(), why(good));
  BOOST_TEST(
      (good->servers == std::vector<std::string>{"127.0.0.1:2379", "b.example:1", "[::1]:65535"}));
  BOOST_TEST(good->prefix == "/chainpump/x");
  for (const char* text :
       {"", "sqlite://a:1/b", "etcd://a:1", "etcd://a:1/", "etcd:///b", "etcd://a/b",
        "etcd://a:0/b", "etcd://a:65536/b", "etcd://a:1,/b", "etcd://a:1x/b", "etcd://u@a:1/b",
        "etcd://a:1/b/", "etcd://a:1/b//c", "etcd://a:1/b c"})
    BOOST_TEST(!parse_etcd_address(text).ok(), text);
}

BOOST_AUTO_TEST_CASE(beyond_the_loopback_only_over_tls) {
  BOOST_TEST(check(HttpServers{{"127.0.0.1:1", "[::1]:1", "localhost:1"}}).ok());
  BOOST_TEST(!check(HttpServers{{"127.0.0.1:1", "10.0.0.1:1"}}).ok());
  BOOST_TEST(!check(HttpServers{{"127.example:1"}}).ok());
  BOOST_TEST(check(HttpServers{{"10.0.0.1:1"}, "ca.pem"}).ok());
  BOOST_TEST(check(HttpServers{{"10.0.0.1:1"}, "ca.pem", "c.pem", "k.pem"}).ok());
  BOOST_TEST(!check(HttpServers{{"10.0.0.1:1"}, "ca.pem", "c.pem"}).ok());
  BOOST_TEST(!check(HttpServers{{"127.0.0.1:1"}, "", "c.pem", "k.pem"}).ok());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::actors
