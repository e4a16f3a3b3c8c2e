// Random numbers that nobody can foretell, from the system: for seeds, secrets and identities. What
// has to come out the same again is drawn by base/philox.h instead. Any thread.
#pragma once

#include <sys/random.h>

#include <cstdint>

#include "base/check.h"

namespace chainpump {

inline uint64_t random_bits() {
  uint64_t bits = 0;
  CHECK_EQ(getrandom(&bits, sizeof bits, 0), static_cast<ssize_t>(sizeof bits));
  return bits;
}

}  // namespace chainpump
