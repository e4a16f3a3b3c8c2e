// A coordinator among others of the same deployment, by a store that they share: it stands by, with
// what the one that leads has noted down of the lanes, until it leads itself.
//
//   stands by  the leader's notes have changed    on_notes
//              it is elected                      on_lead; from then on it notes down what tell()
//              says the deployment has ended, or is    on_ended another than it was
//   leads      its term is over, or may be        on_step_down
//   retires    it stands by, or another does      it may end, and the ranks live on
//              it is the last and leads           it is to take the deployment down
//              it is the last and does not yet    it waits to be elected for that, a moment
//
// Callbacks but for on_step_down, on_other and on_notice come on one thread of its own, where they
// may take their time. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "actors/store/fenced_key.h"
#include "actors/store/lane_notes.h"
#include "base/result.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

struct SuccessionObserver {
  std::function<void(const LaneNotes&)> on_notes;
  std::function<void(const Fence&)> on_lead;
  std::function<void(Error)> on_ended;
  std::function<void(const std::string& why)> on_step_down;
  /// Another leads, or another than before.
  std::function<void(const Candidate&)> on_other;
  /// That it leads, and whether the store can be reached, in sentences.
  std::function<void(const std::string&)> on_notice;
};

/// The servers and keys of a service's store. invalid_argument.
Result<HttpServers> servers_of(const transport::rpc::StoreSpec& store);
EtcdKeys keys_of(const transport::rpc::StoreSpec& store);

class Succession {
 public:
  /// The observer may use the object before this has returned, and until its end. no_room.
  static Status start(std::unique_ptr<Succession>& made, const transport::rpc::StoreSpec& store,
                      const Candidate& self, SuccessionObserver observer);
  /// Gives its place and its term up. Not in a callback.
  ~Succession();
  Succession(const Succession&) = delete;
  Succession& operator=(const Succession&) = delete;

  /// Of the leader: for those who stand by, as soon as may be; the last counts.
  void tell(LaneNotes notes);
  /// It is to end. `answer` comes once: whether it is to take the deployment down first, which it
  /// leads then. Otherwise, before that, `let_go` ends whatever it leads with, and its term is
  /// over when the answer comes.
  void retire(std::function<void()> let_go, std::function<void(bool takes_down)> answer);

 private:
  struct Impl;
  explicit Succession(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::actors
