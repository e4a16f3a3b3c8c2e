#include "tests/actors/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>

#include "tests/actors/replay_lanes.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using fakes::Random;

constexpr int kActionsMax = 5'000'000;

class Replay {
 public:
  Replay(const ReplayModel& model, const Setting& setting, const std::vector<Asked>& asked,
         const std::vector<std::vector<Outcome>>& alone)
      : setting_(setting),
        random_(setting.seed),
        choices_(ReplayChoices::draw(setting, random_)),
        lanes_(model, setting, choices_, clock_, random_,
               [this](const graph::Deliveries& out) { take(out); }) {
    for (size_t i = 0; i < asked.size(); ++i) {
      requests_.push_back({.asked = &asked[i], .now = asked[i].request, .choices = {}, .lane = {}});
      for (size_t choice = 0; choice < alone[i].size(); ++choice)
        requests_[i].choices.push_back({.alone = &alone[i][choice]});
    }
    for (size_t i = 0; i < asked.size(); ++i)
      waiting_.insert(waiting_.begin() + random_.pick(static_cast<int>(i) + 1), i);
  }

  Replayed run() {
    for (int actions = 0; report_.wrong.empty() && (num_open_ > 0 || !waiting_.empty());) {
      if (++actions > kActionsMax) report_.wrong = "it does not end";
      const int what = random_.pick(20);
      if (what < choices_.arrivals)
        submit();
      else if (what == 19)
        interrupt();
      else
        step();
    }
    for (int i = 0; report_.wrong.empty() && !lanes_.idle(); ++i) {
      if (i > kActionsMax) report_.wrong = "the lanes do not come to rest";
      step();
    }
    for (size_t lane = 0; lane < lanes_.size(); ++lane) {
      const graph::SequencerStats stats = lanes_.sequencer(lane).stats();
      if (report_.wrong.empty() && stats.num_free_blocks != stats.num_blocks)
        report_.wrong = "blocks are lost";
      report_.preemptions += stats.preemptions;
      report_.prompt_tokens_hit += stats.prompt_tokens_hit;
    }
    report_.chunks = lanes_.chunks();
    if (!report_.wrong.empty()) report_.wrong += fmt::format(" ({})", describe(choices_));
    return report_;
  }

 private:
  struct ChoiceState {
    const Outcome* alone = nullptr;
    size_t num_tokens = 0;  // delivered
    size_t num_scores = 0;
    bool ended = false;
  };
  struct RequestState {
    const Asked* asked = nullptr;
    graph::Request now;  // as submitted last
    std::vector<ChoiceState> choices;
    std::optional<size_t> lane;  // while submitted
  };

  void step() {
    const auto lane = static_cast<size_t>(random_.pick(setting_.num_lanes));
    const auto stage = static_cast<size_t>(random_.pick(setting_.num_stages));
    const Result<bool> moved = lanes_.loop(lane, stage).step();
    if (!moved.ok() && report_.wrong.empty()) report_.wrong = moved.error().message;
  }

  void submit() {
    if (waiting_.empty()) return;
    const size_t index = waiting_.front();
    waiting_.pop_front();
    RequestState& request = requests_[index];
    const auto lane = static_cast<size_t>(random_.pick(setting_.num_lanes));
    request.now.deadline.reset();
    if (random_.chance(16)) request.now.deadline = clock_.now() + random_.up_to(200ms) + 1ns;
    const Status taken = lanes_.sequencer(lane).submit(request.now, clock_.now());
    if (!taken.ok()) {
      if (taken.error().code != ErrorCode::overloaded) report_.wrong = taken.error().message;
      waiting_.push_back(index);  // asks again later
      return;
    }
    by_id_[request.now.id] = index;
    request.lane = lane;
    ++num_open_;
    ++num_submitted_;
  }

  /// Something happens to a request that runs: cancelled, one choice of it, or its lane is lost and
  /// it goes on elsewhere with what it has.
  void interrupt() {
    if (by_id_.empty() || num_interrupts_ * 6 > num_submitted_) return;
    ++num_interrupts_;
    auto victim = by_id_.begin();
    std::advance(victim, random_.pick(static_cast<int>(by_id_.size())));
    const size_t index = victim->second;
    RequestState& request = requests_[index];
    if (request.asked->resumes) {
      lanes_.sequencer(*request.lane).cancel(request.now.id);
      close(request);
      const ChoiceState& choice = request.choices.front();
      const auto& alone = choice.alone->tokens;
      request.now = request.asked->request;
      for (size_t i = 0; i < choice.num_tokens; ++i)
        request.now.generated.push_back(alone[i].token);
      request.now.id = RequestId(++last_resumed_ << 32);
      waiting_.push_front(index);
      return;
    }
    const bool all = random_.chance(2);
    const auto one = static_cast<size_t>(random_.pick(static_cast<int>(request.choices.size())));
    if (all)
      lanes_.sequencer(*request.lane).cancel(request.now.id);
    else
      lanes_.sequencer(*request.lane)
          .cancel(request.now.id, request.now.first_choice + static_cast<uint32_t>(one));
    for (size_t i = 0; i < request.choices.size(); ++i)
      if (!request.choices[i].ended && (all || i == one)) {
        request.choices[i].ended = true;
        ++report_.num_cut_short;
      }
    close_if_ended(request);
  }

  void close(RequestState& request) {
    by_id_.erase(request.now.id);
    request.lane.reset();
    --num_open_;
  }
  void close_if_ended(RequestState& request) {
    for (const ChoiceState& choice : request.choices)
      if (!choice.ended) return;
    close(request);
  }

  ChoiceState* find(const graph::Choice& choice) {
    const auto found = by_id_.find(choice.request);
    if (found != by_id_.end()) {
      RequestState& request = requests_[found->second];
      const size_t index = choice.index - request.now.first_choice;
      if (index < request.choices.size() && !request.choices[index].ended)
        return &request.choices[index];
    }
    fail(choice, "something comes after its end");
    return nullptr;
  }

  void fail(const graph::Choice& choice, std::string_view what) {
    if (report_.wrong.empty())
      report_.wrong = fmt::format("request {} choice {}: {}", choice.request, choice.index, what);
  }

  void take(const graph::Deliveries& out) {
    for (const graph::TokenDelivery& token : out.tokens) {
      ChoiceState* choice = find(token.choice);
      if (choice == nullptr) return;
      const size_t at = choice->num_tokens++;
      graph::TokenResult wanted =
          at < choice->alone->tokens.size() ? choice->alone->tokens[at] : graph::TokenResult{};
      wanted.id = token.token.id;
      if (!(token.token == wanted))
        return fail(token.choice,
                    fmt::format("token {} at {}, alone {} at {}; logprob {}, {}", token.token.token,
                                token.token.position, wanted.token, wanted.position,
                                token.token.logprob, wanted.logprob));
    }
    for (const graph::ScoreDelivery& score : out.scores) {
      ChoiceState* choice = find(score.choice);
      if (choice == nullptr) return;
      const size_t at = choice->num_scores++;
      graph::ScoreResult wanted =
          at < choice->alone->scores.size() ? choice->alone->scores[at] : graph::ScoreResult{};
      wanted.id = score.score.id;
      if (!(score.score == wanted))
        return fail(score.choice,
                    fmt::format("score {} at {}, alone {} at {}", score.score.logprob,
                                score.score.position, wanted.logprob, wanted.position));
    }
    for (const graph::EndDelivery& end : out.ended) take_end(end);
  }

  void take_end(const graph::EndDelivery& end) {
    ChoiceState* choice = find(end.choice);
    if (choice == nullptr) return;
    choice->ended = true;
    RequestState& request = requests_[by_id_.at(end.choice.request)];
    if (!end.how.ok()) {
      if (end.how.error().code != ErrorCode::deadline_exceeded || !request.now.deadline ||
          *request.now.deadline > clock_.now())
        fail(end.choice, end.how.error().message);
      ++report_.num_cut_short;
    } else {
      const Outcome& alone = *choice->alone;
      const graph::FinishReason finish =
          alone.tokens.empty() ? graph::FinishReason::stop : alone.tokens.back().finish;
      if (choice->num_tokens != alone.tokens.size() || choice->num_scores != alone.scores.size() ||
          *end.how != finish)
        fail(end.choice, "it ends too early, or not as it does alone");
      ++report_.num_completed;
    }
    close_if_ended(request);
  }

  Setting setting_;
  Random random_;
  ReplayChoices choices_;
  ManualClock clock_;
  ReplayLanes lanes_;
  std::vector<RequestState> requests_;
  std::deque<size_t> waiting_;         // to be submitted
  std::map<RequestId, size_t> by_id_;  // of those submitted
  int num_open_ = 0;
  int num_submitted_ = 0;
  int num_interrupts_ = 0;
  uint64_t last_resumed_ = 0;
  Replayed report_;
};

}  // namespace

std::string describe(const Setting& setting) {
  return fmt::format("{} KV, {} stages, {} lanes, prefix cache {}, seed {}",
                     to_string(setting.kv_type), setting.num_stages, setting.num_lanes,
                     setting.prefix_cache ? "on" : "off", setting.seed);
}

Replayed replay(const ReplayModel& model, const Setting& setting, const std::vector<Asked>& asked,
                const std::vector<std::vector<Outcome>>& alone) {
  return Replay(model, setting, asked, alone).run();
}

}  // namespace chainpump::actors
