#include "transport/credit_ledger.h"

#include "base/check.h"

namespace chainpump::transport {

CreditLedger::CreditLedger(int32_t granted) : granted_(granted), available_(granted) {
  CHECK_GT(granted, 0);
}

void CreditLedger::move(int32_t& from, int32_t& to, int32_t n) {
  CHECK_GE(n, 0);
  CHECK_GE(from, n);
  from -= n;
  to += n;
  CHECK_EQ(granted_, available_ + in_flight_ + held_);
}

}  // namespace chainpump::transport
