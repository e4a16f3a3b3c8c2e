#include "transport/frame.h"

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <functional>
#include <set>

#include "transport/crc32c.h"

namespace chainpump::transport {
namespace {

FrameHeader sample_header() {
  FrameHeader h;
  h.kind = WireKind::result;
  h.epoch = PlanEpoch(7);
  h.incarnation = LinkIncarnation(2);
  h.edge = EdgeId(3);
  h.metadata_bytes = 10;
  h.payload_bytes = 20;
  h.sequence = 5;
  h.microbatch = MicrobatchId(0x1122334455667788);
  h.has_body_crc = true;
  h.body_crc = 0xabcdef01;
  h.send_time_ns = 123456789;
  h.credits = 1;
  return h;
}

FrameExpectation sample_expectation() {
  FrameExpectation e;
  e.epoch = PlanEpoch(7);
  e.incarnation = LinkIncarnation(2);
  e.edge = EdgeId(3);
  e.kinds = kind_bit(WireKind::result) | kind_bit(WireKind::activation);
  e.metadata_bytes_max = 10;
  e.payload_bytes_max = 20;
  e.sequence_begin = 5;
  e.sequence_end = 6;
  e.credits_max = 1;
  return e;
}

FrameHeaderBytes encoded(const FrameHeader& h) {
  FrameHeaderBytes bytes;
  encode_frame_header(h, bytes);
  return bytes;
}

/// Makes the header's checksum right again, so that the field behind it is what is refused.
void fix_crc(FrameHeaderBytes& bytes) {
  const uint32_t crc = crc32c(std::span(bytes).first(60));
  std::memcpy(bytes.data() + 60, &crc, sizeof crc);
}

BOOST_AUTO_TEST_SUITE(frame_header)

BOOST_AUTO_TEST_CASE(every_field_survives) {
  const FrameHeader h = sample_header();
  const FrameCheck check = check_frame_header(encoded(h), sample_expectation());
  BOOST_REQUIRE_MESSAGE(check.ok(), to_string(check.refused));
  BOOST_TEST((check.header.kind == h.kind));
  BOOST_TEST((check.header.epoch == h.epoch));
  BOOST_TEST((check.header.incarnation == h.incarnation));
  BOOST_TEST((check.header.edge == h.edge));
  BOOST_TEST(check.header.metadata_bytes == h.metadata_bytes);
  BOOST_TEST(check.header.payload_bytes == h.payload_bytes);
  BOOST_TEST(check.header.sequence == h.sequence);
  BOOST_TEST((check.header.microbatch == h.microbatch));
  BOOST_TEST(check.header.has_body_crc);
  BOOST_TEST(check.header.body_crc == h.body_crc);
  BOOST_TEST(check.header.send_time_ns == h.send_time_ns);
  BOOST_TEST(check.header.credits == h.credits);
}

// The byte table of frame.h, field by field.
BOOST_AUTO_TEST_CASE(bytes_lie_where_the_table_says) {
  const FrameHeaderBytes b = encoded(sample_header());
  const auto at = [&](size_t offset) { return static_cast<int>(b[offset]); };
  BOOST_TEST(std::memcmp(b.data(), "CHPM", 4) == 0);
  BOOST_TEST(at(4) == 1);
  BOOST_TEST(at(5) == 2);
  BOOST_TEST(at(6) == 1);
  BOOST_TEST(at(8) == 7);
  BOOST_TEST(at(12) == 2);
  BOOST_TEST(at(16) == 3);
  BOOST_TEST(at(20) == 10);
  BOOST_TEST(at(24) == 5);
  BOOST_TEST(at(32) == 0x88);
  BOOST_TEST(at(40) == 20);
  BOOST_TEST(at(44) == 0x01);
  BOOST_TEST(at(48) == (123456789 & 0xff));
  BOOST_TEST(at(56) == 1);
  BOOST_TEST(at(58) == 0);
}

BOOST_AUTO_TEST_CASE(each_wrong_field_is_named) {
  struct Case {
    FrameField field;
    std::function<void(FrameHeaderBytes&)> spoil;
  };
  const auto set = [](size_t offset, int value) {
    return [=](FrameHeaderBytes& b) { b[offset] = static_cast<std::byte>(value); };
  };
  const std::vector<Case> cases = {
      {FrameField::magic, set(0, 0)},
      {FrameField::version, set(4, 2)},
      {FrameField::kind, set(5, 0)},
      {FrameField::kind, set(5, 16)},   // a kind, but not one that this end may receive
      {FrameField::kind, set(5, 255)},  // must not shift by 255
      {FrameField::flags, set(6, 3)},
      {FrameField::flags, set(7, 0x80)},
      {FrameField::body_crc, set(6, 0)},  // a checksum without its flag
      {FrameField::epoch, set(8, 8)},
      {FrameField::epoch, set(11, 1)},
      {FrameField::incarnation, set(12, 1)},
      {FrameField::edge, set(16, 2)},
      {FrameField::metadata_bytes, set(20, 11)},
      {FrameField::metadata_bytes, set(23, 0xff)},
      {FrameField::sequence, set(24, 4)},
      {FrameField::sequence, set(24, 6)},
      {FrameField::sequence, set(31, 0xff)},
      {FrameField::payload_bytes, set(40, 21)},
      {FrameField::payload_bytes, set(43, 0x80)},
      {FrameField::credits, set(56, 2)},
      {FrameField::credits, set(57, 0xff)},
      {FrameField::reserved, set(58, 1)},
      {FrameField::reserved, set(59, 1)},
  };
  for (const Case& c : cases) {
    FrameHeaderBytes bytes = encoded(sample_header());
    c.spoil(bytes);
    fix_crc(bytes);
    const FrameCheck check = check_frame_header(bytes, sample_expectation());
    BOOST_TEST((check.refused == c.field), to_string(check.refused)
                                               << " in place of " << to_string(c.field));
    const Error error = refusal_error(check);
    BOOST_TEST((error.code == ErrorCode::invalid_argument));
    BOOST_TEST(error.message.find(to_string(c.field)) != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(any_flipped_bit_is_refused) {
  for (size_t bit = 0; bit < 8 * kFrameHeaderBytes; ++bit) {
    FrameHeaderBytes bytes = encoded(sample_header());
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    BOOST_TEST(!check_frame_header(bytes, sample_expectation()).ok());
  }
}

BOOST_AUTO_TEST_CASE(other_lengths_are_refused) {
  const FrameHeaderBytes bytes = encoded(sample_header());
  for (size_t size = 0; size < kFrameHeaderBytes; ++size) {
    const FrameCheck check = check_frame_header(std::span(bytes).first(size), sample_expectation());
    BOOST_TEST((check.refused == FrameField::size));
  }
}

BOOST_AUTO_TEST_CASE(a_body_must_have_its_length_and_checksum) {
  std::vector<std::byte> body(30, std::byte{9});
  FrameHeader h = sample_header();
  h.body_crc = crc32c(body);
  BOOST_TEST(check_frame_body(h, body).ok());
  BOOST_TEST((check_frame_body(h, std::span(body).first(29)).refused == FrameField::size));
  body[17] ^= std::byte{1};
  BOOST_TEST((check_frame_body(h, body).refused == FrameField::body_crc));
  h.has_body_crc = false;
  BOOST_TEST(check_frame_body(h, body).ok());
}

BOOST_AUTO_TEST_CASE(fields_have_distinct_names) {
  std::set<std::string_view> names;
  for (int i = 0; i < kNumFrameFields; ++i) names.insert(to_string(static_cast<FrameField>(i)));
  BOOST_TEST(names.size() == static_cast<size_t>(kNumFrameFields));
  BOOST_TEST(to_string(static_cast<FrameField>(200)) == "unknown field");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
