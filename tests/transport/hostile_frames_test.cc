// A peer that speaks UCX and knows the link's secret, but whose frames are damaged: the link fails
// with a typed error, its slots are accounted for, and the next link is none the worse.
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <functional>

#include "tests/transport/conformance.h"
#include "transport/crc32c.h"
#include "transport/frame.h"
#include "transport/hello.h"
#include "transport/socket_address.h"
#include "transport/ucx/ucx_connection.h"
#include "transport/ucx/ucx_listener.h"
#include "transport/ucx/ucx_send_link.h"

namespace chainpump::transport {
namespace {

namespace data = boost::unit_test::data;
const auto kUcxKinds = data::make({LinkKind::ucx_tcp, LinkKind::ucx_shared_memory});
using Bytes = std::vector<std::byte>;

constexpr size_t kSmallBytes = 300;
constexpr size_t kLargeBytes = 600'000;  // by rendezvous over every transport
constexpr size_t kMetadataBytes = 40;

std::shared_ptr<UcxContext> context_of(LinkKind kind) {
  static std::shared_ptr<UcxContext> contexts[2];
  auto& context = contexts[kind == LinkKind::ucx_tcp ? 0 : 1];
  if (!context) {
    auto made = UcxContext::create(
        {.kind = kind == LinkKind::ucx_tcp ? TransportKind::tcp : TransportKind::shared_memory});
    BOOST_REQUIRE(made.ok());
    context = *made;
  }
  return context;
}

LinkOptions wire_options() {
  LinkOptions options = small_options();
  options.slot_payload_bytes = kLargeBytes;
  return options;
}

/// A message of our frames, to be damaged: header and body apart, as UCX carries them.
struct Message {
  FrameHeader fields;
  Bytes header;
  Bytes body;
  void encode() {
    header.resize(kFrameHeaderBytes);
    encode_frame_header(fields, std::span<std::byte, kFrameHeaderBytes>(header.data(), 64));
  }
  void fix_header_crc() {
    const uint32_t crc = crc32c(std::span(header).first(60));
    std::memcpy(header.data() + 60, &crc, sizeof crc);
  }
};

Message good_message(uint64_t sequence, size_t payload_bytes) {
  const LinkOptions options = wire_options();
  Message m;
  m.fields.epoch = options.epoch;
  m.fields.incarnation = options.incarnation;
  m.fields.edge = options.edge;
  m.fields.sequence = sequence;
  m.fields.metadata_bytes = kMetadataBytes;
  m.fields.payload_bytes = static_cast<uint32_t>(payload_bytes);
  m.body = pattern(sequence, kMetadataBytes + payload_bytes);
  m.fields.has_body_crc = true;
  m.fields.body_crc = crc32c(m.body);
  m.encode();
  return m;
}

/// Knows the secret and says hello, and then whatever it likes.
class Peer final : private MessageSink {
 public:
  Peer(LinkKind kind, const std::string& address) {
    const auto parsed = parse_socket_address(address);
    BOOST_REQUIRE(parsed.ok());
    auto made = UcxConnection::connect(context_of(kind), *parsed, kNumSlots);
    BOOST_REQUIRE(made.ok());
    connection_ = std::move(*made);
    connection_->set_sink(this);
    connection_->send_control(encode_hello(wire_options(), steady_clock()));
  }
  /// The message must stay until the peer ends.
  void send(const Message& m) {
    BOOST_REQUIRE_LT(next_slot_, kNumSlots);
    connection_->send_frame(m.header, m.body, next_slot_++);
  }
  void progress() { connection_->progress(); }

 private:
  static constexpr int32_t kNumSlots = 16;
  void on_message(std::span<const std::byte>, std::span<const std::byte>) override {}
  std::span<std::byte> on_large(std::span<const std::byte>, size_t, uint64_t&) override {
    return {};
  }
  void on_large_done(uint64_t, bool) override {}
  void on_sent(int32_t) override {}

  int32_t next_slot_ = 0;
  std::unique_ptr<UcxConnection> connection_;
};

/// A listener, and links of wire_options() to be attacked one after the other.
struct Victim {
  explicit Victim(LinkKind kind) : kind_(kind) {
    auto made = UcxListener::create(context_of(kind), {});
    BOOST_REQUIRE(made.ok());
    listener_ = std::move(*made);
  }

  /// Sends `messages` to a fresh link, and returns how it failed. The first frame is taken and held
  /// if `hold`.
  Error fails_with(const std::vector<Message>& messages, bool hold = false) {
    auto link = listener_->accept(wire_options());
    BOOST_REQUIRE(link.ok());
    Ends ends;
    ends.receive = std::move(*link);
    Peer peer(kind_, listener_->address());
    // What is sent before the link has a sender is nobody's.
    BOOST_REQUIRE(drive(ends, [&] {
      peer.progress();
      return ends.receive->state() == LinkState::open;
    }));
    std::unique_ptr<ReceivedFrame> held;
    for (const Message& m : messages) {
      peer.send(m);
      if (!hold || held) continue;
      drive(ends, [&] {
        peer.progress();
        return (held = ends.receive->try_receive()) != nullptr;
      });
      BOOST_REQUIRE(held);
    }
    const bool failed = drive(ends, [&] {
      peer.progress();
      return ends.receive->state() == LinkState::failed;
    });
    BOOST_REQUIRE_MESSAGE(failed, "the link did not fail");
    BOOST_TEST(!ends.receive->try_receive());
    BOOST_TEST(ends.receive->stats().refused_frames == 1u);
    const Error error = ends.receive->error();
    ends.receive.reset();  // checks its slots and credits
    if (held) {
      BOOST_TEST(std::ranges::equal(held->payload(), std::span(messages[0].body).subspan(40)));
    }
    return error;
  }

  /// A link of ours to the same listener works.
  void works() {
    auto link = listener_->accept(wire_options());
    BOOST_REQUIRE(link.ok());
    auto send = ucx_connect(context_of(kind_), listener_->address(), wire_options());
    BOOST_REQUIRE(send.ok());
    Ends ends{nullptr, std::move(*send), std::move(*link)};
    BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::open; }));
    BOOST_REQUIRE(send_pattern(ends, 1, 7, kLargeBytes).ok());
    const auto frame = receive(ends);
    BOOST_REQUIRE(frame);
    BOOST_TEST(is_pattern(*frame, 1, 7, kLargeBytes));
  }

 private:
  LinkKind kind_;
  std::unique_ptr<UcxListener> listener_;
};

void expect_refusal(const Error& error, std::string_view named, std::string_view what) {
  BOOST_TEST((error.code == ErrorCode::invalid_argument), what << ": " << error.message);
  BOOST_TEST(error.message.find(named) != std::string::npos, what << ": " << error.message);
}

BOOST_AUTO_TEST_SUITE(hostile_frames)

BOOST_DATA_TEST_CASE(a_bit_flipped_anywhere_fails_the_link, kUcxKinds, kind) {
  Victim victim(kind);
  for (size_t place = 0; place < kFrameHeaderBytes; ++place) {
    Message m = good_message(1, kSmallBytes);
    m.header[place] ^= static_cast<std::byte>(1 << place % 8);
    expect_refusal(victim.fails_with({m}), "frame refused", fmt::format("header byte {}", place));
  }
  for (const size_t payload : {kSmallBytes, kLargeBytes}) {
    const size_t end = kMetadataBytes + payload;
    for (const size_t place : {size_t{0}, size_t{17}, kMetadataBytes - 1, kMetadataBytes,
                               kMetadataBytes + 1, end / 2, end - 2, end - 1}) {
      Message m = good_message(1, payload);
      m.body[place] ^= static_cast<std::byte>(1 << place % 8);
      expect_refusal(victim.fails_with({m}), "body_crc",
                     fmt::format("byte {} of a body of {}", place, end));
    }
  }
  victim.works();
}

// Fields that lie, under a right checksum.
BOOST_DATA_TEST_CASE(a_lying_header_is_refused_by_name, kUcxKinds, kind) {
  struct Case {
    const char* named;
    std::function<void(Message&)> spoil;
  };
  const auto field = [](auto set) {
    return [set](Message& m) {
      set(m.fields);
      m.encode();
    };
  };
  const std::vector<Case> cases = {
      {"epoch", field([](FrameHeader& h) { h.epoch = PlanEpoch(6); })},
      {"incarnation", field([](FrameHeader& h) { h.incarnation = LinkIncarnation(1); })},
      {"edge", field([](FrameHeader& h) { h.edge = EdgeId(4); })},
      {"sequence", field([](FrameHeader& h) { h.sequence = 0; })},
      {"sequence", field([](FrameHeader& h) { h.sequence = 5; })},
      {"sequence", field([](FrameHeader& h) { h.sequence = ~uint64_t{0}; })},
      {"kind", field([](FrameHeader& h) { h.kind = WireKind::hello; })},
      {"kind", field([](FrameHeader& h) { h.kind = WireKind::credit; })},
      {"kind", field([](FrameHeader& h) { h.kind = WireKind::close_reply; })},
      {"kind", field([](FrameHeader& h) { h.kind = static_cast<WireKind>(0xff); })},
      {"credits", field([](FrameHeader& h) { h.credits = 1; })},
      {"metadata_bytes", field([](FrameHeader& h) { h.metadata_bytes = 257; })},
      {"metadata_bytes", field([](FrameHeader& h) { h.metadata_bytes = ~uint32_t{0}; })},
      {"payload_bytes", field([](FrameHeader& h) { h.payload_bytes = kLargeBytes + 1; })},
      {"payload_bytes", field([](FrameHeader& h) { h.payload_bytes = ~uint32_t{0}; })},
      {"size", field([](FrameHeader& h) { h.metadata_bytes += 1; })},  // beyond the frame
      {"size", field([](FrameHeader& h) { h.metadata_bytes -= 1; })},
      {"size", field([](FrameHeader& h) { h.payload_bytes -= 1; })},
      {"size", field([](FrameHeader& h) { h.metadata_bytes = h.payload_bytes = 0; })},
      {"", field([](FrameHeader& h) { h.kind = WireKind::close; })},  // with a body
      {"size", [](Message& m) { m.body.pop_back(); }},
      {"size", [](Message& m) { m.body.push_back(std::byte{1}); }},
      {"size", [](Message& m) { m.body.clear(); }},
      {"size", [](Message& m) { m.body.resize(3'000'000); }},  // more than slot and frame hold
      {"size", [](Message& m) { m.header.clear(); }},
      {"size", [](Message& m) { m.header.pop_back(); }},
      {"size", [](Message& m) { m.header.push_back(std::byte{0}); }},
      {"size", [](Message& m) { m.header.resize(1000); }},
  };
  Victim victim(kind);
  for (const size_t payload : {kSmallBytes, kLargeBytes}) {
    for (const Case& c : cases) {
      Message m = good_message(1, payload);
      c.spoil(m);
      expect_refusal(victim.fails_with({m}), c.named, c.named);
    }
  }
  victim.works();
}

// What a sender may not do with frames that are each in order; the frame taken before stays whole.
BOOST_DATA_TEST_CASE(a_wrong_succession_fails_the_link, kUcxKinds, kind) {
  Victim victim(kind);
  for (const size_t payload : {kSmallBytes, kLargeBytes}) {
    const auto frames = [&](std::initializer_list<uint64_t> sequences) {
      std::vector<Message> messages;
      for (const uint64_t s : sequences) messages.push_back(good_message(s, payload));
      return messages;
    };
    expect_refusal(victim.fails_with(frames({1, 1}), true), "sequence", "one again");
    expect_refusal(victim.fails_with(frames({2, 2})), "sequence", "one twice, ahead");
    expect_refusal(victim.fails_with(frames({1, 2, 3, 4, 5})), "sequence", "past the window");
    expect_refusal(victim.fails_with(frames({1, 2, 3, 4, 5}), true), "credits", "no credit left");
    std::vector<Message> after_close = frames({1, 2, 3});
    after_close[1].fields.kind = WireKind::close;
    after_close[1].fields.metadata_bytes = after_close[1].fields.payload_bytes = 0;
    after_close[1].fields.has_body_crc = false;
    after_close[1].encode();
    after_close[1].body.clear();
    expect_refusal(victim.fails_with(after_close, true), "sequence", "a frame after the close");
  }
  victim.works();
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
