// The main function of every Boost.Test program here.
#define BOOST_TEST_MODULE chainpump
#include <boost/test/unit_test.hpp>
