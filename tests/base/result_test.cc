#include "base/result.h"

#include <boost/test/unit_test.hpp>
#include <memory>

namespace chainpump {
namespace {
Result<int> half(int n) {
  if (n % 2 != 0) return make_error(ErrorCode::invalid_argument, "{} is odd", n);
  return n / 2;
}
Result<int> quarter(int n) {
  ASSIGN_OR_RETURN(const int once, half(n));
  ASSIGN_OR_RETURN(const int twice, half(once));
  return twice;
}
}  // namespace

BOOST_AUTO_TEST_CASE(result_carries_value_or_error) {
  BOOST_TEST(*quarter(8) == 2);
  const Result<int> bad = quarter(6);
  BOOST_TEST(!bad.ok());
  BOOST_TEST((bad.error().code == ErrorCode::invalid_argument));
  BOOST_TEST(bad.error().message == "3 is odd");
}

BOOST_AUTO_TEST_CASE(result_moves_move_only_values) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(3));
  const std::unique_ptr<int> taken = std::move(result).value();
  BOOST_TEST(*taken == 3);
}

}  // namespace chainpump
