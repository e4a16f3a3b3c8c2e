#include "cli/coordinator_call.h"

#include <fmt/format.h>

#include <future>
#include <memory>

#include "actors/service_folder.h"
#include "cli/progress.h"
#include "transport/rpc/rpc_thread.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::cli {
namespace {

namespace rpc = transport::rpc;

constexpr Duration kHelloMax = std::chrono::seconds(5);
constexpr Duration kCallMax = std::chrono::minutes(10);  // weights may have to be loaded

std::string text_of(const rpc::MoveProgress& progress) {
  switch (progress.step) {
    case rpc::MoveStep::starting:
      return "starting and loading";
    case rpc::MoveStep::copying:
      return fmt::format("copying {:.1f} of {:.1f} MiB", progress.bytes_done / 1048576.0,
                         progress.bytes_total / 1048576.0);
    case rpc::MoveStep::switching:
      return "switching";
  }
  return {};
}

/// The answer of a call, awaited on this thread.
template <typename T>
class Awaited {
 public:
  rpc::Callback<T> callback() {
    return [promise = promise_](Result<T> result) { promise->set_value(std::move(result)); };
  }
  Result<T> get() { return promise_->get_future().get(); }

 private:
  std::shared_ptr<std::promise<Result<T>>> promise_ = std::make_shared<std::promise<Result<T>>>();
};

}  // namespace

Status call_coordinator(const std::string& folder, const CoordinatorCall& call) {
  ASSIGN_OR_RETURN(UniqueFd socket, rpc::connect_unix(actors::coordinator_socket(folder)));
  ASSIGN_OR_RETURN(rpc::RpcThread thread, rpc::RpcThread::create());
  rpc::CoordinatorClient client(thread, std::move(socket), [](const Error&) {});
  Awaited<rpc::HelloReply> hello;
  client.hello(kHelloMax, hello.callback());
  if (const auto greeted = hello.get(); !greeted.ok()) return greeted.error();
  Awaited<Ok> done;
  call(
      client, kCallMax,
      [](const rpc::MoveProgress& progress) {
        if (progress_is_rewritten()) show_progress(text_of(progress));
      },
      done.callback());
  const Result<Ok> result = done.get();
  end_progress();
  return result.ok() ? ok_status() : Status(result.error());
}

}  // namespace chainpump::cli
