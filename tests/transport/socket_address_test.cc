// Which interface an address is on, and which address an interface or a network has here.
#include "transport/socket_address.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::transport {
namespace {

BOOST_AUTO_TEST_SUITE(socket_address)

BOOST_AUTO_TEST_CASE(interfaces_and_networks_have_addresses_here) {
  for (const char* name : {"lo", "127.0.0.0/8", "127.0.0.1/32"}) {
    const Result<std::string> address = address_on(name);
    BOOST_REQUIRE_MESSAGE(address.ok(), name);
    BOOST_TEST(*address == "127.0.0.1");
  }
  for (const char* address : {"127.0.0.1", "127.3.2.1"}) {
    const Result<std::string> interface = interface_of(address);
    BOOST_REQUIRE_MESSAGE(interface.ok(), address);
    BOOST_TEST(*interface == "lo");
  }
}

BOOST_AUTO_TEST_CASE(what_is_not_here_is_refused) {
  const std::pair<const char*, ErrorCode> kTable[] = {
      {"no-such-interface", ErrorCode::not_found},
      {"203.0.113.0/24", ErrorCode::not_found},
      {"127.0.0.0/33", ErrorCode::invalid_argument},
      {"127.0.0.0/", ErrorCode::invalid_argument},
      {"127.0.0/8", ErrorCode::invalid_argument},
      {"127.0.0.0/8x", ErrorCode::invalid_argument},
      {"/", ErrorCode::invalid_argument},
  };
  for (const auto& [name, code] : kTable) {
    const Result<std::string> address = address_on(name);
    BOOST_REQUIRE_MESSAGE(!address.ok(), name);
    BOOST_TEST((address.error().code == code), address.error().message);
  }
  BOOST_TEST((interface_of("203.0.113.7").error().code == ErrorCode::not_found));
  BOOST_TEST((interface_of("somewhere").error().code == ErrorCode::invalid_argument));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
