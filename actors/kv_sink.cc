#include "actors/kv_sink.h"

#include <cstring>
#include <variant>

#include "graph/sequence_store.h"

namespace chainpump::actors {
namespace {

constexpr int kFramesPerStep = 4;

}  // namespace

KvSink::KvSink(KvSinkOptions options, models::StageExecutor& executor,
               std::unique_ptr<transport::ReceiveLink> link, transport::Waiter& waiter)
    : options_(std::move(options)), executor_(executor), link_(std::move(link)), waiter_(waiter) {
  waiter_.add({.progress = [this] { return link_->progress(); },
               .arm = [this] { return link_->arm(); },
               .event_fd = link_->event_fd()});
}

KvSink::~KvSink() { waiter_.remove(link_->event_fd()); }

Result<bool> KvSink::step() {
  bool moved = link_->progress();
  for (int i = 0; i < kFramesPerStep; ++i) {
    const std::unique_ptr<transport::ReceivedFrame> frame = link_->try_receive();
    if (!frame) break;
    moved = true;
    if (frame->kind() != transport::FrameKind::kv || done_)
      return make_error(ErrorCode::invalid_argument, "a frame came that is of no copy");
    ASSIGN_OR_RETURN(const graph::KvFrame decoded,
                     decode_kv_frame(frame->metadata(), frame->payload(), options_.limits));
    RETURN_IF_ERROR(take(decoded));
  }
  const bool ended = link_->state() == transport::LinkState::failed ||
                     link_->state() == transport::LinkState::closed;
  if (ended && !done_)
    return make_error(
        ErrorCode::disconnected, "the copy broke off{}",
        link_->state() == transport::LinkState::failed ? ": " + link_->error().message : "");
  return moved;
}

Status KvSink::take(const graph::KvFrame& frame) {
  if (const auto* piece = std::get_if<graph::KvPiece>(&frame)) return take(*piece);
  if (const auto* end = std::get_if<graph::KvEnd>(&frame)) return take(*end);
  for (const graph::StageHoldings::Held& held : std::get<graph::KvSequences>(frame).held) {
    if (held_.size() >= static_cast<size_t>(executor_.limits().max_sequences))
      return make_error(ErrorCode::invalid_argument, "the copy has too many sequences");
    graph::StageHoldings::Held& own = held_.emplace_back(held);
    const KvBlockId first = options_.first_block(graph::SequenceStore::lane_of(held.id));
    for (KvBlockId& block : own.table) block.value += first.value;
  }
  return ok_status();
}

Status KvSink::take(const graph::KvPiece& piece) {
  ++num_pieces_;
  const KvBlockId block(piece.block.value + options_.first_block(piece.lane).value);
  auto from = piece.bytes;
  for (int32_t i = 0; i < piece.num_layers; ++i) {
    const auto to =
        executor_.kv_block(piece.layer + i, block).subspan(static_cast<size_t>(piece.offset));
    const auto part = from.first(std::min(from.size(), to.size()));
    std::memcpy(to.data(), part.data(), part.size());
    from = from.subspan(part.size());
  }
  return ok_status();
}

Status KvSink::take(const graph::KvEnd& end) {
  if (end != graph::KvEnd{static_cast<uint32_t>(held_.size()), num_pieces_})
    return make_error(ErrorCode::invalid_argument,
                      "the copy ends with {} sequences in {} pieces, of which {} in {} came",
                      end.num_sequences, end.num_pieces, held_.size(), num_pieces_);
  done_ = true;
  return ok_status();
}

}  // namespace chainpump::actors
