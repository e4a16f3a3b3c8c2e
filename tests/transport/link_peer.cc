// The other process of link_failure_test: `link_peer send|receive tcp|shared_memory [address]`. It
// floods, or listens (telling its address on standard output) and holds what it gets, until killed.
#include <unistd.h>

#include <cstring>
#include <deque>

#include "tests/transport/conformance.h"
#include "transport/ucx/ucx_listener.h"
#include "transport/ucx/ucx_send_link.h"

using namespace chainpump;
using namespace chainpump::transport;

namespace {

int flood(const std::shared_ptr<UcxContext>& context, const std::string& address) {
  Ends ends;
  auto link = ucx_connect(context, address, small_options());
  if (!link.ok()) return 1;
  ends.send = std::move(*link);
  for (uint64_t seed = 0; ends.send->state() != LinkState::failed; ++seed) {
    if (!send_pattern(ends, seed, 10, 8000).ok()) return 1;
  }
  return 1;
}

int swallow(const std::shared_ptr<UcxContext>& context) {
  auto listener = UcxListener::create(context, {});
  if (!listener.ok()) return 1;
  auto link = (*listener)->accept(small_options());
  if (!link.ok()) return 1;
  const std::string line = (*listener)->address() + "\n";
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) return 1;
  std::deque<std::unique_ptr<ReceivedFrame>> held;
  while ((*link)->state() != LinkState::failed) {
    (*link)->progress();
    if (auto frame = (*link)->try_receive()) held.push_back(std::move(frame));
    if (held.size() > 2) held.pop_front();
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const bool tcp = std::strcmp(argv[2], "tcp") == 0;
  auto context =
      UcxContext::create({.kind = tcp ? TransportKind::tcp : TransportKind::shared_memory});
  if (!context.ok()) return 1;
  return std::strcmp(argv[1], "send") == 0 && argc == 4 ? flood(*context, argv[3])
                                                        : swallow(*context);
}
