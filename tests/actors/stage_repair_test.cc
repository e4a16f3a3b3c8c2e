// Stages of a chain are lost, at any moment and more than one at once, and put back empty: every
// request goes on with the tokens it would have had, and no stage that lives computes a position
// again whose row was logged.
#include <sys/eventfd.h>

#include <boost/test/unit_test.hpp>

#include "tests/actors/repairs.h"

namespace chainpump::actors {
namespace {

/// A link whose failure a send notices, and state() only with the next progress(), as over UCX.
class FailsInSend final : public transport::SendLink {
 public:
  FailsInSend(std::unique_ptr<transport::SendLink> link, int num_sends)
      : link_(std::move(link)), num_left_(num_sends) {}
  transport::LinkState state() const override {
    return failed_ ? transport::LinkState::failed : link_->state();
  }
  const Error& error() const override { return failed_ ? why_ : link_->error(); }
  std::unique_ptr<transport::SendSlot> try_acquire() override {
    return failed_ ? nullptr : link_->try_acquire();
  }
  Status send(std::unique_ptr<transport::SendSlot> slot, transport::FrameKind kind,
              MicrobatchId microbatch, std::span<const std::byte> metadata,
              int64_t payload_bytes) override {
    if (num_left_-- > 0)
      return link_->send(std::move(slot), kind, microbatch, metadata, payload_bytes);
    noticed_ = true;
    return why_;
  }
  void close() override {
    if (link_) link_->close();
  }
  bool progress() override {
    const bool fails = noticed_ && !failed_;
    failed_ = noticed_;
    if (fails) link_.reset();
    return link_ ? link_->progress() : fails;
  }
  int event_fd() const override { return fd_.get(); }
  bool arm() override { return !link_ || link_->arm(); }
  transport::LinkStats stats() const override { return {}; }

 private:
  std::unique_ptr<transport::SendLink> link_;
  const UniqueFd fd_{::eventfd(0, EFD_CLOEXEC)};
  int num_left_;
  bool noticed_ = false;
  bool failed_ = false;
  const Error why_ = make_error(ErrorCode::disconnected, "the link is not open");
};

/// A link that carries nothing any more after some frames, and tells neither end.
class FallsSilent final : public transport::SendLink {
 public:
  FallsSilent(std::unique_ptr<transport::SendLink> link, int num_sends,
              std::vector<std::unique_ptr<transport::SendLink>>& after_its_end)
      : link_(std::move(link)), num_left_(num_sends), after_its_end_(after_its_end) {}
  ~FallsSilent() override { after_its_end_.push_back(std::move(link_)); }
  transport::LinkState state() const override {
    return closed_ ? transport::LinkState::closed : link_->state();
  }
  const Error& error() const override { return link_->error(); }
  std::unique_ptr<transport::SendSlot> try_acquire() override { return link_->try_acquire(); }
  Status send(std::unique_ptr<transport::SendSlot> slot, transport::FrameKind kind,
              MicrobatchId microbatch, std::span<const std::byte> metadata,
              int64_t payload_bytes) override {
    if (num_left_-- <= 0) return ok_status();
    return link_->send(std::move(slot), kind, microbatch, metadata, payload_bytes);
  }
  void close() override { closed_ = true; }
  bool progress() override { return link_->progress(); }
  int event_fd() const override { return link_->event_fd(); }
  bool arm() override { return link_->arm(); }
  transport::LinkStats stats() const override { return link_->stats(); }

 private:
  std::unique_ptr<transport::SendLink> link_;
  int num_left_;
  bool closed_ = false;
  std::vector<std::unique_ptr<transport::SendLink>>& after_its_end_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(any_stage_after_the_first_at_any_moment) {
  for (const int32_t num_stages : {2, 3, 5})
    for (size_t dead = 1; dead < static_cast<size_t>(num_stages); ++dead)
      for (int before = 0; before < 60; before += 3) {
        Chain chain(num_stages, {.replay_log_bytes = kLogAll, .prefix_cache = false});
        const std::vector<Asked> asked = submit_some(chain);
        step_all(chain, before);
        std::vector<size_t> computed;
        for (const auto& executor : chain.executors) computed.push_back(executor->num_computed());
        chain.lose({dead});
        chain.repair({dead});
        const Status dry = chain.run_dry();
        BOOST_REQUIRE_MESSAGE(dry.ok(), fakes::why(dry));
        check_answers(chain, asked);
        size_t once = 0;
        for (const Asked& each : asked) once += each.num_positions();
        for (size_t i = 0; i < chain.executors.size(); ++i)
          if (i != dead)
            BOOST_TEST(chain.executors[i]->num_computed() == once,
                       "stage " << i << " of " << num_stages << " when " << dead
                                << " was lost after " << before << " rounds");
        BOOST_TEST(chain.executors[dead]->num_computed() <= once);
        // As each counts it itself.
        for (size_t i = 0; i < chain.loops.size(); ++i) {
          BOOST_TEST(chain.loops[i]->again().held == 0u);
          BOOST_TEST(chain.loops[i]->again().rebuilt <= (i == dead ? computed[dead] : 0));
        }
        if (before == 30 && num_stages == 3) BOOST_TEST(chain.loops[dead]->again().rebuilt > 0u);
      }
}

BOOST_AUTO_TEST_CASE(without_a_log_the_stages_before_compute_again) {
  for (const int64_t log_bytes : {int64_t{0}, int64_t{2} * kKvBlockTokens * 16})
    for (int before = 1; before < 40; before += 4) {
      Chain chain(4, {.replay_log_bytes = log_bytes, .prefix_cache = false});
      const std::vector<Asked> asked = submit_some(chain);
      step_all(chain, before);
      chain.lose({2});
      chain.repair({2});
      BOOST_REQUIRE(chain.run_dry().ok());
      check_answers(chain, asked);
      size_t once = 0;
      for (const Asked& each : asked) once += each.num_positions();
      BOOST_TEST(chain.executors[3]->num_computed() == once);  // its inputs are not asked for
      for (const size_t i : {0u, 1u})
        BOOST_TEST(chain.loops[i]->again().held + once == chain.executors[i]->num_computed());
    }
}

BOOST_AUTO_TEST_CASE(several_at_once_and_again_before_it_is_over) {
  for (const std::set<size_t>& dead : {std::set<size_t>{1, 2}, {1, 3}, {2, 3}, {1, 2, 3}})
    for (int between = 0; between < 12; ++between) {
      Chain chain(4, {.replay_log_bytes = kLogAll});
      const std::vector<Asked> asked = submit_some(chain);
      step_all(chain, 9);
      for (int i = 0; i < 4; ++i) {
        chain.lose(dead);
        chain.repair(dead);
        step_all(chain, between);
      }
      BOOST_REQUIRE(chain.run_dry().ok());
      check_answers(chain, asked);
    }
}

BOOST_AUTO_TEST_CASE(a_link_whose_end_a_send_sees_first) {
  for (const size_t sender : {0u, 1u, 2u})
    for (int before = 0; before < 12; ++before) {
      Chain chain(3, {.replay_log_bytes = kLogAll,
                      .wrap_sender = [&](size_t i, std::unique_ptr<transport::SendLink> link)
                          -> std::unique_ptr<transport::SendLink> {
                        if (i != sender) return link;
                        return std::make_unique<FailsInSend>(std::move(link), before);
                      }});
      const std::vector<Asked> asked = submit_some(chain);
      BOOST_REQUIRE(chain.run_dry().ok());
      BOOST_REQUIRE(chain.loops[sender]->broken_by().has_value());
      chain.given.wrap_sender = nullptr;
      chain.lose({});
      chain.repair({});
      BOOST_REQUIRE(chain.run_dry().ok());
      check_answers(chain, asked);
    }
}

// Who waits for a link over which nothing comes waits for a second, when it is fenced.
BOOST_AUTO_TEST_CASE(a_link_that_has_fallen_silent) {
  for (const size_t sender : {0u, 1u, 2u}) {
    std::vector<std::unique_ptr<transport::SendLink>> silent;
    Chain chain(3, {.replay_log_bytes = kLogAll,
                    .wrap_sender = [&](size_t i, std::unique_ptr<transport::SendLink> link)
                        -> std::unique_ptr<transport::SendLink> {
                      if (i != sender) return link;
                      return std::make_unique<FallsSilent>(std::move(link), 7, silent);
                    }});
    const std::vector<Asked> asked = submit_some(chain);
    BOOST_REQUIRE(chain.run_dry().ok());
    for (const auto& loop : chain.loops) BOOST_TEST(loop->at_work());
    chain.given.wrap_sender = nullptr;
    const TimePoint began = steady_clock().now();
    chain.lose({});
    BOOST_TEST((steady_clock().now() - began < std::chrono::milliseconds(2500)));
    chain.repair({});
    BOOST_REQUIRE(chain.run_dry().ok());
    check_answers(chain, asked);
  }
}

BOOST_AUTO_TEST_CASE(what_is_submitted_and_cancelled_meanwhile) {
  Chain chain(3, {.replay_log_bytes = kLogAll});
  std::vector<Asked> asked = submit_some(chain);
  step_all(chain, 10);
  chain.lose({1});
  asked.push_back({chain.submit(20, 8), 20, 8});
  chain.first().sequencer().cancel(asked[0].id);
  chain.first().sequencer().cancel(asked[3].id);
  asked.erase(asked.begin() + 3);
  asked.erase(asked.begin());
  chain.repair({1});
  BOOST_REQUIRE(chain.run_dry().ok());
  check_answers(chain, asked);
}

BOOST_AUTO_TEST_CASE(rows_that_were_never_logged_cannot_be_asked_for) {
  FakeExecutor executor({.stage = 0, .is_first = true});
  StageWork work({.is_first = true, .replay_log_bytes = kLogAll}, executor);
  std::vector<float> room(64 * FakeExecutor::kHidden);
  graph::StepResult result;
  graph::Microbatch microbatch;
  microbatch.id = MicrobatchId(1);
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(1);
  descriptor.prompt = {1, 2, 3};
  microbatch.descriptors = {descriptor};
  microbatch.slices = {{.id = SequenceId(1), .tokens = {1, 2}, .new_blocks = {KvBlockId(3)}}};
  BOOST_TEST(*work.run(microbatch, {}, room, result) == 2 * FakeExecutor::kHidden);
  const std::vector<float> sent(room.begin(), room.begin() + 2 * FakeExecutor::kHidden);
  BOOST_TEST(work.holdings().logged.size() == 1u);

  // The stage after lost them, and gets them again; this one computes nothing.
  microbatch.id = MicrobatchId(2);
  microbatch.stages = {.first = 1, .last = 1};
  std::fill(room.begin(), room.end(), 0.0f);
  BOOST_TEST(*work.run(microbatch, {}, room, result) == 2 * FakeExecutor::kHidden);
  BOOST_TEST(std::vector<float>(room.begin(), room.begin() + 2 * FakeExecutor::kHidden) == sent);
  BOOST_TEST(executor.num_computed() == 2u);
  // Two stages on nobody needs them.
  microbatch.stages = {.first = 2, .last = 3};
  BOOST_TEST(*work.run(microbatch, {}, room, result) == 0);

  microbatch.stages = {.first = 1, .last = 1};
  graph::SequenceSlice& slice = microbatch.slices[0];
  const graph::SequenceSlice good = slice;
  slice.tokens = {1, 2, 3};  // one more than was ever there
  BOOST_TEST((work.run(microbatch, {}, room, result).error().code == ErrorCode::internal));
  slice = good;
  slice.new_blocks = {KvBlockId(4)};
  BOOST_TEST((work.run(microbatch, {}, room, result).error().code == ErrorCode::internal));
  slice = good;
  slice.new_blocks.clear();
  BOOST_TEST((work.run(microbatch, {}, room, result).error().code == ErrorCode::internal));
  slice = good;
  BOOST_TEST((work.run(microbatch, room, room, result).error().code == ErrorCode::internal));
}

}  // namespace chainpump::actors
