#include "actors/kv_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "graph/sequence_store.h"

namespace chainpump::actors {
namespace {

// Each is short of what the one before took; if they do not come to an end, the rest is no less.
constexpr int kRoundsMax = 16;

}  // namespace

KvSource::KvSource(KvSourceOptions options, models::StageExecutor& executor,
                   std::unique_ptr<transport::SendLink> link, transport::Waiter& waiter,
                   rpc::Reply<Ok> copied)
    : options_(std::move(options)),
      executor_(executor),
      link_(std::move(link)),
      waiter_(waiter),
      copied_(std::move(copied)),
      account_(static_cast<size_t>(executor.limits().num_kv_blocks)) {
  for (int32_t layer = options_.layer_begin; layer < options_.layer_end; ++layer)
    bytes_per_block_ += std::ssize(executor_.kv_block(layer, KvBlockId(0)));
  waiter_.add({.progress = [this] { return link_->progress(); },
               .arm = [this] { return link_->arm(); },
               .event_fd = link_->event_fd()});
}

KvSource::~KvSource() {
  waiter_.remove(link_->event_fd());
  const Error over = make_error(ErrorCode::cancelled, "the copy was given up");
  if (!copied_.answered()) copied_(over);
  if (!finished_.answered()) finished_(over);
}

void KvSource::finish(rpc::Reply<Ok> finished) {
  if (state_ != State::copying && state_ != State::following)
    return finished(make_error(ErrorCode::invalid_argument, "there is no copy to be finished"));
  if (!copied_.answered()) copied_(Ok{});
  finished_ = std::move(finished);
  state_ = State::finishing;
  block_.reset();
  account_.begin_round(executor_.sequences(), true);
}

void KvSource::fail(const Error& why) {
  state_ = State::over;
  const Error error = make_error(ErrorCode::disconnected, "the copy: {}", why.message);
  if (!copied_.answered()) copied_(error);
  if (!finished_.answered()) finished_(error);
}

bool KvSource::step() {
  if (over()) return false;
  bool moved = link_->progress();
  if (link_->state() == transport::LinkState::failed) {
    fail(link_->error());
    return true;
  }
  switch (state_) {
    case State::connecting:
      if (link_->state() != transport::LinkState::open) return moved;
      state_ = State::copying;
      account_.begin_round(executor_.sequences(), false);
      return true;
    case State::copying:
    case State::following:
    case State::finishing:
      if (link_->state() == transport::LinkState::open) return send_one() || moved;
      fail(make_error(ErrorCode::disconnected, "the other rank has closed it"));
      return true;
    case State::closing:
      if (link_->state() != transport::LinkState::closed) return moved;
      state_ = State::over;
      finished_(Ok{});
      return true;
    case State::over:
      break;
  }
  return moved;
}

bool KvSource::is_copied(SequenceId id) const {
  const uint8_t lane = graph::SequenceStore::lane_of(id);
  return std::find(options_.lanes.begin(), options_.lanes.end(), lane) != options_.lanes.end();
}

/// Whether there is a block to be sent.
bool KvSource::find_block() {
  if (block_) return true;
  while (const auto version = account_.next(executor_.sequences())) {
    // Of another lane, or only who holds it is to be told.
    if (bytes_per_block_ == 0 || !is_copied(version->sequence)) {
      account_.note_copied(*version);
      continue;
    }
    block_ = Block{.version = *version, .layer = options_.layer_begin};
    return true;
  }
  return false;
}

/// A round has found nothing any more. True if that was news to anybody.
bool KvSource::at_round_end() {
  if (state_ == State::finishing) return true;
  const bool is_enough = account_.num_found() == 0 || ++num_rounds_ >= kRoundsMax;
  account_.begin_round(executor_.sequences(), false);
  if (state_ == State::following) return false;
  if (!is_enough) return true;
  state_ = State::following;
  copied_(Ok{});
  return true;
}

bool KvSource::send_one() {
  if (!held_ && !find_block()) {
    if (!at_round_end()) return false;
    if (state_ != State::finishing) return true;
    held_.emplace();
    const models::SequenceTable& table = executor_.sequences();
    for (const SequenceId id : table.ids())
      if (is_copied(id)) held_->push_back(in_lane(table.held_as_told(id)));
  }
  std::unique_ptr<transport::SendSlot> slot = link_->try_acquire();
  if (!slot) return false;
  metadata_.clear();
  if (!held_)
    send_piece(std::move(slot));
  else if (num_held_sent_ < held_->size())
    send_sequences(std::move(slot));
  else
    send_end(std::move(slot));
  return true;
}

/// In the blocks that the lane's frames name.
graph::StageHoldings::Held KvSource::in_lane(graph::StageHoldings::Held held) const {
  const KvBlockId first = options_.first_block(graph::SequenceStore::lane_of(held.id));
  for (KvBlockId& block : held.table) block.value -= first.value;
  return held;
}

void KvSource::send_piece(std::unique_ptr<transport::SendSlot> slot) {
  const std::span<std::byte> room = slot->payload();
  const uint8_t lane = graph::SequenceStore::lane_of(block_->version.sequence);
  graph::KvPiece piece{
      .lane = lane,
      .block = KvBlockId(block_->version.block.value - options_.first_block(lane).value),
      .layer = block_->layer,
      .num_layers = 0,
      .offset = block_->offset};
  size_t size = 0;
  while (block_->layer < options_.layer_end) {
    const auto whole = executor_.kv_block(block_->layer, block_->version.block);
    const auto left = whole.subspan(static_cast<size_t>(block_->offset));
    const bool fits = left.size() <= room.size() - size;
    if (!fits && piece.num_layers > 0) break;
    const auto part = left.first(std::min(left.size(), room.size() - size));
    std::memcpy(room.data() + size, part.data(), part.size());
    size += part.size();
    ++piece.num_layers;
    if (!fits) {
      block_->offset += std::ssize(part);
      break;
    }
    ++block_->layer;
    if (std::exchange(block_->offset, 0) != 0) break;  // the end of a layer goes alone
  }
  encode(piece, metadata_);
  send(std::move(slot), static_cast<int64_t>(size));
  ++num_pieces_;
  if (block_->layer < options_.layer_end) return;
  account_.note_copied(block_->version);
  block_.reset();
  ++num_blocks_;
  report();
}

void KvSource::send_sequences(std::unique_ptr<transport::SendSlot> slot) {
  const auto rest = std::span(*held_).subspan(num_held_sent_);
  const auto [count, bytes] = graph::encode(rest, slot->payload(), metadata_);
  num_held_sent_ += count;
  send(std::move(slot), bytes);
}

void KvSource::send_end(std::unique_ptr<transport::SendSlot> slot) {
  encode(graph::KvEnd{static_cast<uint32_t>(held_->size()), num_pieces_}, metadata_);
  send(std::move(slot), 0);
  link_->close();
  state_ = State::closing;
}

/// A link that fails says so with the next look at it.
void KvSource::send(std::unique_ptr<transport::SendSlot> slot, int64_t payload_bytes) {
  const Status sent = link_->send(std::move(slot), transport::FrameKind::kv, MicrobatchId(),
                                  metadata_, payload_bytes);
  if (!sent.ok()) CHECK(sent.error().code == ErrorCode::disconnected);
}

void KvSource::report() {
  const int64_t held = std::max<int64_t>(executor_.sequences().num_blocks_held(), num_blocks_);
  if (options_.progress) options_.progress(num_blocks_ * bytes_per_block_, held * bytes_per_block_);
}

}  // namespace chainpump::actors
