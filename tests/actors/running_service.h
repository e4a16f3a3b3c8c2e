// A service over a tiny model, and a look at its processes from outside: for the tests of actors/.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "actors/runtime.h"
#include "actors/service.h"
#include "graph/demo_graph.h"
#include "graph/planner.h"
#include "models/gguf/gguf.h"
#include "models/llama/profile.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {

constexpr Duration kPatience = std::chrono::seconds(30);

template <typename Condition>
bool wait_for(Condition condition, Duration patience = kPatience) {
  const TimePoint deadline = steady_clock().now() + patience;
  while (!condition()) {
    if (steady_clock().now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

inline graph::Plan plan_for(const std::string& path, int32_t stages, bool in_process) {
  const auto graph = graph::parse_graph_text(graph::kDemoGraph, "demo");
  BOOST_REQUIRE_MESSAGE(graph.ok(), fakes::why(graph));
  const auto file = models::GgufFile::open(path);
  BOOST_REQUIRE_MESSAGE(file.ok(), fakes::why(file));
  const auto profile = models::read_profile(*file);
  BOOST_REQUIRE_MESSAGE(profile.ok(), fakes::why(profile));
  graph::PlanOverrides overrides;
  overrides.stages = stages;
  overrides.model_path = path;
  if (in_process) overrides.transport = graph::TransportKind::loopback;
  overrides.prefill_chunk = 16;
  const auto plan =
      make_plan(*graph, *profile, graph::nominal_machine(2, int64_t{4} << 30), overrides);
  BOOST_REQUIRE_MESSAGE(plan.ok(), fakes::why(plan));
  return *plan;
}

struct Process {
  pid_t pid;
  std::string verb;
};

/// The processes of the service in `folder` that live: agent and coordinator by their arguments,
/// ranks by their parent.
inline std::vector<Process> processes_of(const std::string& folder) {
  std::map<pid_t, std::pair<pid_t, std::vector<std::string>>> all;  // parent, arguments
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream stat(entry.path() / "stat");
    std::string text((std::istreambuf_iterator<char>(stat)), {});
    const size_t end = text.rfind(')');
    if (end == std::string::npos || text[end + 2] == 'Z' || text[end + 2] == 'X') continue;
    std::ifstream cmdline(entry.path() / "cmdline");
    std::vector<std::string> arguments;
    for (std::string argument; std::getline(cmdline, argument, '\0');)
      arguments.push_back(argument);
    if (arguments.size() >= 3) all[std::stoi(name)] = {std::stoi(text.substr(end + 4)), arguments};
  }
  std::vector<Process> found;
  std::set<pid_t> agents;
  for (const auto& [pid, info] : all)
    if (info.second.size() >= 4 && info.second[3] == folder) {
      found.push_back({pid, info.second[1]});
      if (info.second[1] == "agent") agents.insert(pid);
    }
  for (const auto& [pid, info] : all)
    if (info.second[1] == "rank" && agents.contains(info.first))
      found.push_back({pid, info.second[2]});
  return found;
}

struct Model {
  TemporaryFolder temporary;
  std::string path = temporary.path() / "tiny.gguf";
  Model() {
    fakes::TinyShape shape;
    shape.context = 4096;
    fakes::TinyLlama(shape, 5).write(path);
  }
};

/// A service whose supervisor is this process.
struct Running {
  TemporaryFolder temporary;
  std::string folder = temporary.path();
  std::unique_ptr<Service> service;

  explicit Running(const graph::Plan& plan) {
    auto started = Service::start(folder, plan, options());
    BOOST_REQUIRE_MESSAGE(started.ok(), fakes::why(started));
    service = std::move(*started);
  }
  ~Running() { finish(); }
  static ServiceOptions options();  // each test says which program
  void finish() {
    if (!service) return;
    service.reset();
    BOOST_TEST(wait_for([&] { return processes_of(folder).empty(); }, std::chrono::seconds(5)),
               "processes are left");
    BOOST_TEST(std::filesystem::is_empty(folder), "files are left");
  }
  bool failed(Duration patience) const {
    pollfd ready{service->failure_fd(), POLLIN, 0};
    return ::poll(&ready, 1, static_cast<int>(to_ms(patience))) == 1;
  }
  std::unique_ptr<Runtime> attach() {
    std::unique_ptr<Runtime> runtime;
    BOOST_REQUIRE(wait_for([&] {
      auto attached = Runtime::attach(folder, {});
      if (attached.ok()) runtime = std::move(*attached);
      return runtime != nullptr;
    }));
    return runtime;
  }
  std::unique_ptr<Runtime> attach_ready() {
    auto runtime = attach();
    const Status ready = runtime->wait_ready(kPatience);
    BOOST_REQUIRE_MESSAGE(ready.ok(), fakes::why(ready));
    return runtime;
  }
  std::vector<Process> processes() const { return processes_of(folder); }
  pid_t pid_of(const std::string& verb) const {
    for (const Process& process : processes())
      if (process.verb == verb) return process.pid;
    BOOST_FAIL("no process " + verb);
    return -1;
  }
};

}  // namespace chainpump::actors
