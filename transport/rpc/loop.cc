#include "transport/rpc/loop.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace chainpump::transport::rpc {
namespace {

std::optional<ErrorCode> code_by_name(std::string_view name) {
  for (int i = 1; i <= static_cast<int>(ErrorCode::internal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    if (to_string(code) == name) return code;
  }
  return std::nullopt;
}

ErrorCode code_of(kj::Exception::Type type) {
  switch (type) {
    case kj::Exception::Type::FAILED:
      return ErrorCode::internal;
    case kj::Exception::Type::OVERLOADED:
      return ErrorCode::overloaded;
    case kj::Exception::Type::DISCONNECTED:
      return ErrorCode::disconnected;
    case kj::Exception::Type::UNIMPLEMENTED:
      return ErrorCode::unimplemented;
  }
  return ErrorCode::internal;
}

}  // namespace

std::string to_text(const Error& error) {
  return fmt::format("[{}] {}", to_string(error.code), error.message);
}

Error from_text(std::string_view text, ErrorCode fallback) {
  const size_t end = text.find("] ");
  if (text.starts_with('[') && end != std::string_view::npos)
    if (const auto code = code_by_name(text.substr(1, end - 1)))
      return Error{*code, std::string(text.substr(end + 2))};
  return make_error(fallback, "control connection: {}", text);
}

kj::Exception to_exception(const Error& error) {
  const std::string text = to_text(error);
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                       kj::heapString(text.data(), text.size()));
}

Error to_error(const kj::Exception& exception) {
  const kj::StringPtr description = exception.getDescription();
  std::string_view text(description.begin(), description.size());
  constexpr std::string_view kRemote = "remote exception: ";  // put before it by the library
  if (text.starts_with(kRemote)) text.remove_prefix(kRemote.size());
  return from_text(text, code_of(exception.getType()));
}

kj::Duration to_kj(Duration duration) {
  constexpr Duration kMax = std::chrono::hours(24 * 365);
  return std::clamp(duration, Duration(0), kMax).count() * kj::NANOSECONDS;
}

Result<kj::AsyncIoContext> make_loop() {
  std::optional<kj::AsyncIoContext> loop;
  const auto refusal = kj::runCatchingExceptions([&] { loop.emplace(kj::setupAsyncIo()); });
  KJ_IF_MAYBE (why, refusal)
    return make_error(ErrorCode::no_room, "cannot start an event loop: {} (limits: ulimit -n)",
                      to_error(*why).message);
  return *std::move(loop);
}

bool Inbox::post(Task task) {
  const std::lock_guard lock(mutex_);
  if (closed_) return false;
  tasks_.push_back(std::move(task));
  if (sleeping_) {
    sleeping_ = false;
    wake_->fulfill();
  }
  return true;
}

kj::Promise<void> Inbox::run() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    if (tasks_.empty()) {
      auto paf = kj::newPromiseAndCrossThreadFulfiller<void>();
      wake_ = kj::mv(paf.fulfiller);
      sleeping_ = true;
      return paf.promise.then([this] { return run(); });
    }
    tasks.swap(tasks_);
  }
  // Each is destroyed before the next runs: what it holds may be what the next one waits for.
  for (Task& task : tasks) std::exchange(task, nullptr)();
  return kj::evalLater([this] { return run(); });
}

void Inbox::close() {
  std::vector<Task> tasks;  // destroyed outside the lock: destructors may post
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    sleeping_ = false;
    tasks.swap(tasks_);
    wake_ = nullptr;
  }
  for (Task& task : tasks) task = nullptr;  // in the order posted
}

}  // namespace chainpump::transport::rpc
