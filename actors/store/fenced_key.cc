#include "actors/store/fenced_key.h"

#include <algorithm>
#include <thread>

namespace chainpump::actors {
namespace {

using What = EtcdCompare::What;

constexpr Duration kTryAgainAfter = std::chrono::milliseconds(20);
constexpr Duration kCallMax = std::chrono::milliseconds(1500);

/// Nobody has answered: somebody may yet.
bool is_worth_another(const Error& error) {
  return error.code == ErrorCode::disconnected || error.code == ErrorCode::deadline_exceeded ||
         error.code == ErrorCode::internal;
}

}  // namespace

Error FencedKey::over() const {
  return make_error(ErrorCode::cancelled, "term {} is over: another coordinator leads, or may",
                    fence_.term);
}

Result<std::optional<std::string>> FencedKey::read() {
  while (lasts()) {
    const TimePoint deadline = std::min(fence_.until(), steady_clock().now() + kCallMax);
    Result<EtcdValue> value = client_->get(key_, deadline);
    if (value.ok()) {
      revision_ = value->mod_revision;
      if (revision_ == 0) return std::optional<std::string>();
      return std::optional(std::move(value->text));
    }
    if (!is_worth_another(value.error())) return value.error();
    std::this_thread::sleep_for(kTryAgainAfter);
  }
  return over();
}

/// Until somebody has answered, or the term is over.
Result<EtcdOutcome> FencedKey::transact(const EtcdTransaction& what) {
  while (lasts()) {
    const TimePoint deadline = std::min(fence_.until(), steady_clock().now() + kCallMax);
    Result<EtcdOutcome> outcome = client_->transact(what, deadline);
    if (outcome.ok() && !lasts()) break;  // whoever leads now has seen it, or refused it
    if (outcome.ok() || !is_worth_another(outcome.error())) return outcome;
    std::this_thread::sleep_for(kTryAgainAfter);
  }
  return over();
}

Status FencedKey::write(const std::string& text) {
  ASSIGN_OR_RETURN(const EtcdOutcome outcome,
                   transact({.compare = {{fence_.keys.leader(), What::create_revision, fence_.term},
                                         {key_, What::mod_revision, revision_}},
                             .change = {{key_, text}},
                             .look = {fence_.keys.leader(), key_}}));
  if (outcome.succeeded) {
    revision_ = outcome.revision;
    return ok_status();
  }
  if (outcome.looked[0].create_revision != fence_.term) return over();
  // An attempt that nobody had answered may have been carried out.
  const EtcdValue& there = outcome.looked[1];
  if (there.mod_revision <= revision_ || there.text != text)
    return make_error(ErrorCode::internal, "{} was written by somebody else", key_);
  revision_ = there.mod_revision;
  return ok_status();
}

Status FencedKey::clear() {
  const EtcdKeys& keys = fence_.keys;
  ASSIGN_OR_RETURN(const EtcdOutcome outcome,
                   transact({.compare = {{keys.leader(), What::create_revision, fence_.term}},
                             .change = {{keys.record(), {}},
                                        {keys.lanes(), {}},
                                        {keys.plan(), {}},
                                        {keys.leader(), {}}},
                             .look = {}}));
  return outcome.succeeded ? ok_status() : Status(over());
}

}  // namespace chainpump::actors
