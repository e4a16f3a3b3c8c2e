// A service's processes: used by several runtimes at once, ended in order, and by the death of
// each.
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "actors/service_folder.h"
#include "tests/actors/running_service.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using fakes::why;

struct Listener {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<TokenId> tokens;
  std::optional<Result<Ok>> end;

  SequenceCallbacks callbacks() {
    return {.on_token =
                [this](const graph::TokenResult& token) {
                  const std::lock_guard lock(mutex);
                  tokens.push_back(token.token);
                  changed.notify_all();
                },
            .on_score = [](const graph::ScoreResult&) {},
            .on_end =
                [this](Result<Ok> how) {
                  const std::lock_guard lock(mutex);
                  BOOST_TEST(!end.has_value());
                  end = std::move(how);
                  changed.notify_all();
                }};
  }
  bool wait_tokens(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, [&] { return tokens.size() >= count || end; }) && !end;
  }
  Result<Ok> wait_end() {
    std::unique_lock lock(mutex);
    BOOST_REQUIRE(changed.wait_for(lock, kPatience, [&] { return end.has_value(); }));
    return *end;
  }
};

SequenceRequest request(int32_t num_prompt, int32_t max_new, float temperature = 0.0f) {
  SequenceRequest request;
  for (int32_t i = 0; i < num_prompt; ++i) request.prompt.push_back((i * 31 + i * i / 7) % 80);
  request.sampling.max_new_tokens = max_new;
  request.sampling.temperature = temperature;
  request.sampling.seed = 42;
  request.sampling.ignore_eos = true;
  return request;
}

}  // namespace

ServiceOptions Running::options() {
  ServiceOptions options;
  options.program = CHAINPUMP_PROGRAM;
  options.spin_between_ops = false;
  return options;
}

BOOST_AUTO_TEST_CASE(several_runtimes_use_one_service) {
  const Model model;
  std::vector<TokenId> greedy, sampled;
  {
    auto alone = Runtime::start(plan_for(model.path, 2, true),
                                {.in_process = true, .rank_program = {}, .isa = {}});
    BOOST_REQUIRE((*alone)->wait_ready(kPatience).ok());
    Listener a, b;
    (*alone)->submit(request(30, 40), kPatience, a.callbacks());
    (*alone)->submit(request(45, 30, 0.9f), kPatience, b.callbacks());
    BOOST_REQUIRE(a.wait_end().ok());
    BOOST_REQUIRE(b.wait_end().ok());
    greedy = a.tokens, sampled = b.tokens;
  }
  Running service(plan_for(model.path, 2, false));
  const auto first = service.attach_ready();
  BOOST_TEST(service.processes().size() == 4u);
  {
    const auto second = service.attach_ready();
    Listener a, b, c;  // both number their requests from 1
    first->submit(request(30, 40), kPatience, a.callbacks());
    second->submit(request(45, 30, 0.9f), kPatience, b.callbacks());
    first->submit(request(45, 30, 0.9f), kPatience, c.callbacks());
    for (Listener* listener : {&a, &b, &c}) BOOST_TEST(listener->wait_end().ok());
    BOOST_TEST(a.tokens == greedy);
    BOOST_TEST(b.tokens == sampled);
    BOOST_TEST(c.tokens == sampled);
    const auto report = second->report(kPatience);
    BOOST_REQUIRE_MESSAGE(report.ok(), why(report));
    BOOST_REQUIRE_EQUAL(report->stages.size(), 2u);
    BOOST_TEST(report->stages[0].pid == service.pid_of("rank-0"));
    BOOST_TEST(report->stages[1].pid == service.pid_of("rank-1"));
    BOOST_TEST(!report->numerics_id.empty());
    for (const uint32_t rank : {0, 1, 0}) {
      const auto steps = second->trace(RankId(rank), 0, kPatience);
      BOOST_REQUIRE_MESSAGE(steps.ok(), why(steps));
      BOOST_TEST(steps->events.size() > 20u);
    }
    for (const uint32_t rank : {2u, 4000000000u})
      BOOST_TEST(
          (second->trace(RankId(rank), 0, kPatience).error().code == ErrorCode::invalid_argument));
    Listener cancelled, hurried;
    const RequestId id = second->submit(request(10, 3000), kPatience, cancelled.callbacks());
    BOOST_REQUIRE(cancelled.wait_tokens(3));
    second->cancel(id);
    BOOST_TEST((cancelled.wait_end().error().code == ErrorCode::cancelled));
    second->submit(request(10, 3000), 50ms, hurried.callbacks());
    BOOST_TEST((hurried.wait_end().error().code == ErrorCode::deadline_exceeded));
    Listener dropped;  // a runtime that leaves takes its requests along, nobody else's
    second->submit(request(10, 3000), kPatience, dropped.callbacks());
    BOOST_REQUIRE(dropped.wait_tokens(3));
    second->stop();
    BOOST_TEST(!dropped.wait_end().ok());
  }
  Listener after;
  first->submit(request(30, 40), kPatience, after.callbacks());
  BOOST_TEST(after.wait_end().ok());
  BOOST_TEST(after.tokens == greedy);
  Listener running;
  first->submit(request(10, 3000), kPatience, running.callbacks());
  BOOST_REQUIRE(running.wait_tokens(1));
  BOOST_TEST(!service.failed(0s));
  service.finish();
  BOOST_TEST(!running.wait_end().ok());
  BOOST_TEST((Runtime::attach(service.folder, {}).error().code == ErrorCode::not_found));
}

BOOST_AUTO_TEST_CASE(the_death_of_any_process_ends_it_with_the_reason) {
  const Model model;
  graph::Plan plan = plan_for(model.path, 2, false);
  plan.failover_restarts = 0;
  const std::vector<std::pair<std::string, std::string>> victims = {
      {"agent", "the node agent died: killed by SIGKILL"},
      {"coordinator", "the coordinator died: killed by SIGKILL"},
      {"rank-0", "died: killed by SIGKILL"},
      {"rank-1", "died: killed by SIGKILL"}};
  for (const auto& [verb, expected] : victims) {
    Running service(plan);
    Listener listener;  // outlives the runtime, which tells it of the end
    const auto runtime = service.attach_ready();
    runtime->submit(request(10, 3000), kPatience, listener.callbacks());
    BOOST_REQUIRE(listener.wait_tokens(2));
    const TimePoint began = steady_clock().now();
    BOOST_REQUIRE_EQUAL(::kill(service.pid_of(verb), SIGKILL), 0);
    BOOST_REQUIRE(service.failed(kPatience));
    const Error how = service.service->why_failed();
    BOOST_TEST_MESSAGE(verb << ": " << to_ms(steady_clock().now() - began)
                            << " ms: " << how.message);
    BOOST_TEST(to_ms(steady_clock().now() - began) < 1000.0);
    BOOST_TEST(how.message.find(expected) != std::string::npos, how.message);
    if (verb != "coordinator") {  // which is not on the tokens' way
      const Result<Ok> end = listener.wait_end();
      BOOST_TEST(to_ms(steady_clock().now() - began) < 1000.0);
      BOOST_REQUIRE(!end.ok());
      BOOST_TEST(end.error().message.find(verb == "agent" ? "its node agent died" : expected) !=
                     std::string::npos,
                 end.error().message);
    }
    service.finish();
  }
}

// Requests do not notice it; runtimes that were there and new ones find the next. The last one too
// many ends it.
BOOST_AUTO_TEST_CASE(a_killed_coordinator_is_followed_by_another) {
  const Model model;
  graph::Plan plan = plan_for(model.path, 2, false);
  plan.failover_restarts = 3;
  Running service(plan);
  Listener calm, listener, idle;  // outlive the runtime
  const auto runtime = service.attach_ready();
  runtime->submit(request(10, 3000, 0.9f), kPatience, calm.callbacks());
  BOOST_REQUIRE(calm.wait_end().ok());
  const pid_t agent = service.pid_of("agent");
  const std::vector<pid_t> ranks = {service.pid_of("rank-0"), service.pid_of("rank-1")};
  runtime->submit(request(10, 3000, 0.9f), kPatience, listener.callbacks());
  for (size_t round = 1; round <= 3; ++round) {
    BOOST_REQUIRE(listener.wait_tokens(10 * round));
    const pid_t before = service.pid_of("coordinator");
    BOOST_REQUIRE_EQUAL(::kill(before, SIGKILL), 0);
    const auto another = service.attach_ready();
    Listener quick;
    another->submit(request(10, 3), kPatience, quick.callbacks());
    BOOST_TEST(quick.wait_end().ok());
    BOOST_TEST(service.pid_of("coordinator") != before);
  }
  const Result<Ok> end = listener.wait_end();
  BOOST_REQUIRE_MESSAGE(end.ok(), why(end));
  BOOST_TEST(listener.tokens == calm.tokens);
  BOOST_TEST(service.pid_of("agent") == agent);
  BOOST_TEST(service.pid_of("rank-0") == ranks[0]);
  BOOST_TEST(service.pid_of("rank-1") == ranks[1]);
  BOOST_TEST(wait_for([&] { return runtime->report(kPatience).ok(); }));
  BOOST_TEST(!service.failed(0s));

  runtime->submit(request(10, 3000), kPatience, idle.callbacks());
  BOOST_REQUIRE_EQUAL(::kill(service.pid_of("coordinator"), SIGKILL), 0);
  BOOST_REQUIRE(service.failed(kPatience));
  BOOST_TEST(service.service->has_given_up());
  const Error how = service.service->why_failed();
  BOOST_TEST(how.message ==
             "the coordinator died: killed by SIGKILL (Killed), after 3 new starts within 60 s "
             "(failover.restarts: 3)");
  BOOST_TEST(wait_for([&] { return !runtime->wait_ready(0s).ok(); }));
  service.finish();
  BOOST_TEST(!idle.wait_end().ok());
}

// Four ranks in two lanes; a runtime in another process uses both, and a death says whose it was.
BOOST_AUTO_TEST_CASE(lanes_are_ranks_side_by_side) {
  const Model model;
  graph::Plan plan = plan_for(model.path, 2, false);
  plan.failover_restarts = 0;
  for (graph::StagePlan& stage : plan.stages) {
    stage.devices.resize(2);
    for (graph::DevicePlan& device : stage.devices) device.cores.clear();
  }
  Running service(plan);
  const auto runtime = service.attach_ready();
  BOOST_TEST(service.processes().size() == 6u);
  std::vector<Listener> listeners(6);
  for (Listener& listener : listeners)
    runtime->submit(request(30, 40, 0.9f), kPatience, listener.callbacks());
  for (Listener& listener : listeners) BOOST_TEST(listener.wait_end().ok());
  for (const Listener& listener : listeners) BOOST_TEST(listener.tokens == listeners[0].tokens);
  const auto report = runtime->report(kPatience);
  BOOST_REQUIRE_MESSAGE(report.ok(), why(report));
  BOOST_REQUIRE_EQUAL(report->stages.size(), 4u);
  for (const StageReport& stage : report->stages) BOOST_TEST(stage.tokens > 0u);
  BOOST_TEST(report->stages[3].pid == service.pid_of("rank-3"));

  BOOST_REQUIRE_EQUAL(::kill(service.pid_of("rank-3"), SIGKILL), 0);
  BOOST_REQUIRE(service.failed(kPatience));
  const Error how = service.service->why_failed();
  BOOST_TEST(how.message == fmt::format("stage '{}' of lane 1 died: killed by SIGKILL (Killed)",
                                        plan.stages[1].name));
}

BOOST_AUTO_TEST_CASE(a_plan_that_cannot_be_brought_up_says_why) {
  const Model model;
  graph::Plan plan = plan_for(model.path, 2, false);
  plan.model_path += ".missing";
  Running service(plan);
  const auto runtime = service.attach();
  const Status ready = runtime->wait_ready(kPatience);
  BOOST_REQUIRE(!ready.ok());
  BOOST_TEST(ready.error().message.find("tiny.gguf.missing") != std::string::npos,
             ready.error().message);
  BOOST_REQUIRE(service.failed(kPatience));
  BOOST_TEST(service.service->why_failed().message == ready.error().message);
}

// In a process of its own, since that is what is killed. What it leaves in the folder is no
// hindrance to the next.
BOOST_AUTO_TEST_CASE(nothing_outlives_a_killed_supervisor) {
  const Model model;
  const graph::Plan plan = plan_for(model.path, 2, false);
  const TemporaryFolder temporary;
  const std::string folder = temporary.path();
  const pid_t supervisor = ::fork();
  if (supervisor == 0) {
    const auto service = Service::start(folder, plan, Running::options());
    while (service.ok()) ::pause();
    ::_exit(1);
  }
  BOOST_REQUIRE_GT(supervisor, 0);
  {
    std::unique_ptr<Runtime> runtime;
    BOOST_REQUIRE(wait_for([&] {
      auto attached = Runtime::attach(folder, {});
      if (attached.ok()) runtime = std::move(*attached);
      return runtime != nullptr;
    }));
    BOOST_REQUIRE(runtime->wait_ready(kPatience).ok());
    Listener listener;
    runtime->submit(request(10, 3000), kPatience, listener.callbacks());
    BOOST_REQUIRE(listener.wait_tokens(2));
    BOOST_REQUIRE_EQUAL(::kill(supervisor, SIGKILL), 0);
    BOOST_REQUIRE_EQUAL(::waitpid(supervisor, nullptr, 0), supervisor);
    BOOST_TEST(wait_for([&] { return processes_of(folder).empty(); }, 5s), "processes are left");
    BOOST_TEST(!listener.wait_end().ok());
  }
  BOOST_TEST(std::filesystem::exists(coordinator_socket(folder)));
  BOOST_TEST(Service::start(folder, plan, Running::options()).ok());  // and ends at once
  BOOST_TEST(wait_for([&] { return processes_of(folder).empty(); }, 5s), "processes are left");
  BOOST_TEST(std::filesystem::is_empty(folder));
}

BOOST_AUTO_TEST_CASE(strangers_at_the_sockets_disturb_nobody) {
  const Model model;
  Running service(plan_for(model.path, 1, false));
  const auto runtime = service.attach_ready();
  const std::vector<std::string> paths = {agent_socket(service.folder),
                                          coordinator_socket(service.folder),
                                          rank_socket(service.folder, RankId(0))};
  std::vector<UniqueFd> strangers;
  for (const std::string& path : paths) {
    BOOST_TEST((std::filesystem::status(path).permissions() ==
                (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)));
    // Garbage, and a message that is cut short.
    for (const std::string& bytes :
         {std::string(4096, '\xff'), std::string("\0\0\0\0\x40\0\0\0abc", 11)}) {
      auto socket = transport::rpc::connect_unix(path);
      BOOST_REQUIRE_MESSAGE(socket.ok(), why(socket));
      (void)::send(socket->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      ::shutdown(socket->get(), SHUT_WR);
    }
    // More connections than there may be: those beyond are closed.
    for (int i = 0; i < 80; ++i) {
      BOOST_REQUIRE(wait_for([&] {  // the queue of those that wait to be let in may be full
        auto socket = transport::rpc::connect_unix(path);
        if (socket.ok()) strangers.push_back(std::move(*socket));
        return socket.ok();
      }));
    }
    BOOST_TEST(wait_for([&] {
      size_t num_closed = 0;
      for (const UniqueFd& socket : strangers) {
        char byte;
        if (::recv(socket.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0) ++num_closed;
      }
      return num_closed >= 16;
    }));
    Listener listener;  // who was there before is served
    runtime->submit(request(10, 5), kPatience, listener.callbacks());
    BOOST_TEST(listener.wait_end().ok());
    strangers.clear();
  }
  BOOST_TEST(runtime->report(kPatience).ok());
  // There is room again as soon as the ends of the others have been seen.
  BOOST_TEST(wait_for([&] {
    auto late = Runtime::attach(service.folder, {});
    if (!late.ok() || !(*late)->wait_ready(kPatience).ok()) return false;
    Listener listener;
    (*late)->submit(request(10, 5), kPatience, listener.callbacks());
    return listener.wait_end().ok();
  }));
}

// Nobody polls: all processes together use less than 2 % of a core.
BOOST_AUTO_TEST_CASE(an_idle_service_costs_nothing) {
  const Model model;
  Running service(plan_for(model.path, 3, false));
  const auto runtime = service.attach_ready();
  Listener listener;
  runtime->submit(request(10, 5), kPatience, listener.callbacks());
  BOOST_TEST(listener.wait_end().ok());
  const auto cpu_ms = [&] {
    int64_t sum_ns = 0;
    for (const Process& process : service.processes())
      for (const auto& thread :
           std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process.pid))) {
        int64_t ns = 0;
        std::ifstream(thread.path() / "schedstat") >> ns;
        sum_ns += ns;
      }
    return sum_ns / 1'000'000;
  };
  const int64_t before = cpu_ms();
  std::this_thread::sleep_for(1s);  // what is measured is time
  const int64_t used = cpu_ms() - before;
  BOOST_TEST_MESSAGE("idle: " << used << " ms of a core in 1 s");
  BOOST_TEST(used <= 20);
}

// The verbs of the processes are for a supervisor, not for people.
BOOST_AUTO_TEST_CASE(an_agent_without_a_socket_says_so) {
  for (const char* command : {" agent --dir /", " coordinator --dir / --plan /nowhere"}) {
    const int status =
        std::system((std::string(CHAINPUMP_PROGRAM) + command + " 3<&- 2>/dev/null").c_str());
    BOOST_TEST(WEXITSTATUS(status) == 5);
  }
}

}  // namespace chainpump::actors
