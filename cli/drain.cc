#include "cli/drain.h"

#include <charconv>
#include <cstdio>
#include <future>

#include "actors/service_folder.h"
#include "cli/exit_status.h"
#include "cli/machine.h"
#include "cli/progress.h"
#include "cli/status.h"
#include "gateway/service_folder.h"
#include "graph/diagnostics.h"
#include "transport/rpc/coordinator_client.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::cli {
namespace {

namespace rpc = transport::rpc;

constexpr Duration kHelloMax = std::chrono::seconds(5);
constexpr Duration kMoveMax = std::chrono::minutes(10);  // weights may have to be loaded

/// Both processes are there for a while. A standby is there already.
Status check_room(const graph::Plan& plan, RankId rank) {
  const graph::StagePlan& stage =
      plan.stages[static_cast<size_t>(place_of(plan, rank).stage.value)];
  if (stage.standbys > 0) return ok_status();
  const int64_t needed = stage.weight_bytes + stage.kv_bytes + stage.slot_bytes;
  const int64_t there = usable_memory_bytes();
  if (needed <= there) return ok_status();
  return make_error(ErrorCode::no_room,
                    "{} has to be there twice for a while, which takes {} bytes more; {} are free",
                    rank_name(plan, rank), needed, there);
}

std::string text_of(const rpc::MoveProgress& progress) {
  switch (progress.step) {
    case rpc::MoveStep::starting:
      return "starting another process";
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

Status drain(const DrainOptions& options) {
  ASSIGN_OR_RETURN(const auto service, find_service(options.service));
  const gateway::DeploymentInfo& deployment = service->deployment();
  ASSIGN_OR_RETURN(const RankId rank, find_rank(deployment.plan, options.rank));
  RETURN_IF_ERROR(check_room(deployment.plan, rank));
  const std::string folder = gateway::service_folder(deployment.graph_name).string();
  ASSIGN_OR_RETURN(UniqueFd socket, rpc::connect_unix(actors::coordinator_socket(folder)));
  ASSIGN_OR_RETURN(rpc::RpcThread thread, rpc::RpcThread::create());
  rpc::CoordinatorClient client(thread, std::move(socket), [](const Error&) {});
  Awaited<rpc::HelloReply> hello;
  client.hello(kHelloMax, hello.callback());
  if (const auto greeted = hello.get(); !greeted.ok()) return greeted.error();
  std::fprintf(stderr, "[moving %s]\n", rank_name(deployment.plan, rank).c_str());
  Awaited<Ok> moved;
  client.move(
      rank.value, kMoveMax,
      [](const rpc::MoveProgress& progress) {
        if (progress_is_rewritten()) show_progress(text_of(progress));
      },
      moved.callback());
  const Result<Ok> done = moved.get();
  end_progress();
  return done.ok() ? ok_status() : Status(done.error());
}

}  // namespace

void add_drain(CLI::App& app, DrainOptions& options) {
  CLI::App& drain = *app.add_subcommand("drain", "moves a rank of a service to another process");
  drain
      .add_option("rank", options.rank,
                  "its number, as `status` counts them from 0, or the name of its stage")
      ->required();
  drain.add_option("name", options.service, "a service's name; the only one if not given");
}

Result<RankId> find_rank(const graph::Plan& plan, const std::string& name) {
  uint32_t number = 0;
  const char* const last = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data(), last, number);
  if (error == std::errc() && end == last) {
    if (number < static_cast<uint32_t>(num_ranks(plan))) return RankId(number);
    return make_error(ErrorCode::not_found, "there is no rank {}: they are 0 to {}", number,
                      num_ranks(plan) - 1);
  }
  std::vector<std::string_view> names;
  for (const graph::StagePlan& stage : plan.stages) {
    names.push_back(stage.name);
    if (stage.name != name) continue;
    if (num_replicas(plan, stage.index) == 1) return rank_at(plan, graph::LaneId(0), stage.index);
    return make_error(ErrorCode::invalid_argument,
                      "stage '{}' has {} ranks; say by its number which", name,
                      num_replicas(plan, stage.index));
  }
  return make_error(ErrorCode::not_found, "there is no stage '{}'{}", graph::shown(name),
                    graph::hint(name, names));
}

int run_drain(const DrainOptions& options) {
  const Status drained = drain(options);
  if (drained.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", drained.error().message.c_str());
  return exit_status(drained.error().code);
}

}  // namespace chainpump::cli
