// Frames that arrive damaged: a million at the checks, and some thousands over whole links. What is
// taken is what was sent.
#include <boost/test/unit_test.hpp>
#include <cstring>

#include "tests/fakes/random.h"
#include "tests/transport/conformance.h"
#include "transport/crc32c.h"
#include "transport/frame.h"
#include "transport/loopback.h"

namespace chainpump::transport {
namespace {

constexpr uint32_t kMetadataBytes = 24;

/// Turns one bit to eight, or a run of bytes, somewhere in the message; never nothing.
void damage(std::span<std::byte> message, fakes::Random& random) {
  const auto place = [&] {
    return static_cast<size_t>(random.pick(static_cast<int>(message.size())));
  };
  if (random.chance(4)) {
    const size_t begin = place();
    const size_t end = std::min(message.size(), begin + 1 + static_cast<size_t>(random.pick(40)));
    for (size_t i = begin; i < end; ++i) message[i] ^= static_cast<std::byte>(1 + random.pick(255));
    return;
  }
  // Two bits turned in one place are as before: each in a byte of its own.
  const size_t first = place();
  for (int i = 1 + random.pick(8), at = 0; at < i; ++at)
    message[(first + static_cast<size_t>(at) * 13) % message.size()] ^=
        static_cast<std::byte>(1 << random.pick(8));
}

BOOST_AUTO_TEST_SUITE(frame_damage)

BOOST_AUTO_TEST_CASE(a_million_damaged_frames_are_refused) {
  fakes::Random random(3);
  size_t num_header = 0, num_body = 0;
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    const uint32_t payload_bytes = static_cast<uint32_t>(random.pick(400));
    std::vector<std::byte> message(kFrameHeaderBytes);
    const std::vector<std::byte> body = pattern(i, kMetadataBytes + payload_bytes);
    FrameHeader h;
    h.kind = WireKind::activation;
    h.epoch = PlanEpoch(7);
    h.incarnation = LinkIncarnation(2);
    h.edge = EdgeId(3);
    h.metadata_bytes = kMetadataBytes;
    h.payload_bytes = payload_bytes;
    h.sequence = i;
    h.microbatch = MicrobatchId(random.next());
    h.has_body_crc = true;
    h.body_crc = crc32c(body);
    h.send_time_ns = static_cast<int64_t>(random.next());
    encode_frame_header(h, std::span(message).first<kFrameHeaderBytes>());
    message.insert(message.end(), body.begin(), body.end());
    damage(message, random);
    const FrameExpectation expected{.epoch = h.epoch,
                                    .incarnation = h.incarnation,
                                    .edge = h.edge,
                                    .kinds = kind_bit(WireKind::activation),
                                    .metadata_bytes_max = kMetadataBytes,
                                    .payload_bytes_max = 400,
                                    .sequence_begin = i,
                                    .sequence_end = i + 1};
    const FrameCheck header =
        check_frame_header(std::span(message).first<kFrameHeaderBytes>(), expected);
    if (!header.ok()) {
      ++num_header;
      continue;
    }
    const FrameCheck whole =
        check_frame_body(header.header, std::span(message).subspan(kFrameHeaderBytes));
    BOOST_TEST_REQUIRE(!whole.ok(), "frame " << i << " was taken");
    BOOST_TEST_REQUIRE((whole.refused == FrameField::body_crc));
    ++num_body;
  }
  BOOST_TEST(num_header > 100'000u);
  BOOST_TEST(num_body > 100'000u);
}

// Each ends its link, and nothing of it is seen; what came before it is whole.
BOOST_AUTO_TEST_CASE(links_end_with_the_first) {
  fakes::Random random(4);
  for (uint64_t round = 0; round < 3000; ++round) {
    const int hit = random.pick(4);
    int sent = -1;  // the first message is the hello
    LinkOptions options = small_options();
    auto [sender, receiver] = make_loopback_pair(
        {.sender = options, .receiver = options, .on_wire = [&](std::span<std::byte> message) {
           if (sent++ == hit) damage(message, random);
         }});
    Ends ends{.listener = nullptr, .send = std::move(sender), .receive = std::move(receiver)};
    for (uint64_t i = 0; i < 4; ++i)  // as many as the link takes before it ends
      if (!send_pattern(ends, i, 20, 300).ok()) break;
    BOOST_TEST_REQUIRE(drive(ends, [&] { return ends.receive->state() == LinkState::failed; }),
                       "round " << round << " hit " << hit << " sent " << sent);
    for (int i = 0; i <= 4; ++i)
      if (const auto frame = ends.receive->try_receive())
        BOOST_TEST_REQUIRE((i < hit && is_pattern(*frame, static_cast<uint64_t>(i), 20, 300)));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
