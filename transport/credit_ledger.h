// The account of one link's credits, kept at each end with its own view of the same sum:
//
//   granted = available + in flight + held, always, CHECKed at every change.
//
//   at the sender:   available: may be acquired; held: acquired and being written;
//                    in flight: sent and not yet given back.
//   at the receiver: available: free slots (their credits are at the sender or on their way);
//                    in flight: frames that have begun to arrive; held: complete, not yet let go.
//
// A ledger belongs to one incarnation of a link; a new link starts a new one. Pure; one thread.
#pragma once

#include <cstdint>

namespace chainpump::transport {

class CreditLedger {
 public:
  explicit CreditLedger(int32_t granted);

  int32_t granted() const { return granted_; }
  int32_t available() const { return available_; }
  int32_t in_flight() const { return in_flight_; }
  int32_t held() const { return held_; }

  // Sender: acquire -> (send | give_back) -> returned.
  void acquire() { move(available_, held_, 1); }
  void give_back() { move(held_, available_, 1); }
  void send() { move(held_, in_flight_, 1); }
  void returned(int32_t credits) { move(in_flight_, available_, credits); }

  // Receiver: arriving -> arrived -> released.
  void arriving() { move(available_, in_flight_, 1); }
  void arrived() { move(in_flight_, held_, 1); }
  void released() { move(held_, available_, 1); }

 private:
  void move(int32_t& from, int32_t& to, int32_t n);

  int32_t granted_;
  int32_t available_;
  int32_t in_flight_ = 0;
  int32_t held_ = 0;
};

}  // namespace chainpump::transport
