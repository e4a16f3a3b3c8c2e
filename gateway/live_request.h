// A request that the engine works on: its sequences, its deadline, and its one end. What results
// mean is the business of Generation and Scoring, which derive from it.
//
//   admitted --submit--> running --every sequence has ended--> ended
//   running  --cancel, deadline, a sequence's error--> ending --every sequence has ended--> ended
//   ending   --a second without an answer from the engine--> ended
//
// Thread rule: any thread. The engine's callbacks come on its threads; `wake` is called there, or
// in the thread of whoever cancels or expires, when there is something new for whoever takes, and
// then not again before he has come and found nothing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "gateway/admission.h"
#include "gateway/engine.h"
#include "gateway/tally.h"
#include "gateway/types.h"

namespace chainpump::gateway {

using Wake = std::function<void()>;

/// What a request needs of its surroundings; all of it outlives the request's end.
struct Surroundings {
  Engine& engine;
  const Clock& clock;
  std::shared_ptr<Tally> tally;
};

class LiveRequest : public std::enable_shared_from_this<LiveRequest> {
 public:
  LiveRequest(const LiveRequest&) = delete;
  LiveRequest& operator=(const LiveRequest&) = delete;
  virtual ~LiveRequest() = default;

  RequestId id() const { return id_; }
  /// Ends it with `cancelled`, within a second even if no stage answers any more.
  void cancel();
  /// Ends it if its deadline has passed, or if it was to end a second ago. To be called now and
  /// then, as nothing here has a timer.
  void expire();
  /// Ends it for good, now, with this error: the engine is no more.
  void abandon(const Error& error);
  /// Positions that its sequences may hold in the KV caches.
  virtual int64_t num_tokens_held() = 0;

 protected:
  LiveRequest(Surroundings surroundings, RequestId id, Duration deadline, Wake wake);

  /// Once, by the derived class's maker, with a permit for each sequence, given back as it ends. A
  /// sequence's index is its choice's. Without any it has ended, well.
  void submit(std::vector<actors::SequenceRequest> requests, std::vector<Permit> permits);

  // With mutex_ held:
  /// Each takes a result in; whether there is something new to be taken out.
  virtual bool on_token(size_t choice, const graph::TokenResult& token, TimePoint now) = 0;
  virtual bool on_score(const graph::ScoreResult& score) = 0;
  /// From on_token or on_score: the request is to end with this error.
  void set_error(Error error);
  /// Whether whoever takes must be told.
  bool to_be_woken() { return !std::exchange(awake_, true); }

  Surroundings surroundings_;
  const TimePoint admitted_;
  std::mutex mutex_;
  bool awake_ = false;
  std::optional<Result<Ok>> end_;  // set once

 private:
  template <typename F>
  void receive(F&& take_in);
  /// Begins to end it, unless it is ending. What to cancel, once mutex_ is free.
  [[nodiscard]] std::vector<RequestId> begin_end(Error error);
  std::vector<RequestId> ids_in_engine() const;
  actors::SequenceCallbacks callbacks_of(size_t choice);
  void on_sequence_end(size_t choice, Result<Ok> end);
  void cancel_in_engine(const std::vector<RequestId>& ids);
  void set_end(Result<Ok> end);  // with mutex_ held

  const RequestId id_;
  const Duration deadline_;
  const Wake wake_;
  std::vector<RequestId> engine_ids_;  // of those that submit() is done with
  std::map<size_t, Permit> permits_;   // of each choice, until its sequence has ended
  std::optional<Error> error_;         // what it is to end with
  std::optional<TimePoint> ending_since_;
};

}  // namespace chainpump::gateway
