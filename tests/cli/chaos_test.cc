// `chainpump chaos`, what is pure of it: a seed's faults and requests, the comparison, gaps, the
// report and its state file; and what it reads of processes.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <map>

#include "cli/chaos_check.h"
#include "cli/chaos_report.h"
#include "cli/chaos_schedule.h"
#include "cli/chaos_state.h"
#include "cli/process_facts.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"

namespace chainpump::cli {
namespace {

using namespace std::chrono_literals;
using Kinds = std::vector<FaultKind>;

const Kinds kBoth = {FaultKind::kill, FaultKind::stop};

gateway::Delta delta(int32_t first_index, std::vector<TokenId> tokens, int32_t choice = 0) {
  gateway::Delta out;
  out.choice = choice;
  out.first_index = first_index;
  out.tokens = std::move(tokens);
  out.text = std::string(out.tokens.size(), 'x');
  return out;
}

/// The answer 10, 11, 12, 13 with a length end, against what came.
Comparison compared(const std::vector<gateway::Delta>& deltas, bool ended = true,
                    graph::FinishReason finish = graph::FinishReason::length) {
  Receipt receipt(1);
  for (const gateway::Delta& each : deltas) receipt.add(each, TimePoint{});
  gateway::Delta last;
  last.finish = finish;
  receipt.add(last, TimePoint{});
  return Comparison::of(
      {{.tokens = {10, 11, 12, 13}, .text = "xxxx", .finish = graph::FinishReason::length}},
      receipt, ended);
}

FaultRecord record(uint64_t number, std::vector<double> gaps) {
  FaultRecord out;
  out.number = number;
  out.what = "kill";
  out.at_ms = 12.5;
  out.victim = "stage 'front'";
  out.pid = 77;
  out.num_unfinished = 9;
  out.went_on_ms = 300;
  out.gaps_ms = std::move(gaps);
  return out;
}

ChaosReport part(uint64_t number) {
  ChaosReport out;
  out.num_requests = 3;
  out.faults = {record(number, {1, 2})};
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(names_of_faults) {
  BOOST_TEST((parse_faults("kill").value() == Kinds{FaultKind::kill}));
  BOOST_TEST((parse_faults("stop,kill,stop").value() == kBoth));
  BOOST_TEST((parse_faults("coordinator").value() == Kinds{FaultKind::coordinator}));
  for (const char* text : {"", ",", "kill,", "Kill", "kil", "kill stop"}) {
    const auto found = parse_faults(text);
    BOOST_TEST_REQUIRE(!found.ok(), text);
    BOOST_TEST((found.error().code == ErrorCode::invalid_argument));
  }
  BOOST_TEST(parse_faults("kil").error().message.find("did you mean 'kill'") != std::string::npos);
  BOOST_TEST((parse_faults("gateway+kill,slow,kill+next").value() ==
              Kinds{FaultKind::slow, FaultKind::kill_next, FaultKind::gateway_kill}));
  BOOST_TEST(!parse_faults("next+kill").ok());
  for (const FaultEntry& entry : fault_entries()) BOOST_TEST(&entry_of(entry.kind) == &entry);
}

BOOST_AUTO_TEST_CASE(a_seed_is_a_row_of_faults) {
  size_t num_kills = 0, num_in_recovery = 0, num_differ = 0;
  size_t num_at_point = 0;
  std::vector<size_t> victims(4), points(transport::kNumFaultPoints);
  for (uint64_t i = 0; i < 2000; ++i) {
    const PlannedFault fault = planned_fault(7, kBoth, i);
    BOOST_TEST_REQUIRE((fault == planned_fault(7, kBoth, i)));
    num_differ += fault != planned_fault(8, kBoth, i);
    num_kills += fault.kind == FaultKind::kill;
    num_in_recovery += fault.in_recovery;
    num_at_point += fault.is_at_point();
    if (fault.is_at_point()) ++points[static_cast<size_t>(fault.order.point)];
    BOOST_TEST_REQUIRE(transport::check_fault(fault.order).ok());
    ++victims[static_cast<size_t>(fault.victim * 4)];
    BOOST_TEST_REQUIRE((fault.delay >= 0s && fault.delay <= 1500ms));
    if (fault.kind == FaultKind::stop)
      BOOST_TEST_REQUIRE((fault.pause >= 100ms && fault.pause <= 3s));
    else
      BOOST_TEST_REQUIRE((fault.pause == 0s));
    BOOST_TEST_REQUIRE((planned_fault(7, {FaultKind::stop}, i).kind == FaultKind::stop));
  }
  BOOST_TEST(num_differ == 2000u);
  BOOST_TEST((num_at_point > 400 && num_at_point < 600), num_at_point);
  for (const size_t count : points) BOOST_TEST((count > 40 && count < 110), count);
  BOOST_TEST((num_kills > 900 && num_kills < 1100), num_kills);
  BOOST_TEST((num_in_recovery > 230 && num_in_recovery < 370), num_in_recovery);
  for (const size_t count : victims) BOOST_TEST((count > 400 && count < 600), count);
  BOOST_TEST(!planned_fault(7, kBoth, 0).in_recovery);
}

BOOST_AUTO_TEST_CASE(what_ranks_are_told_to_do_to_themselves) {
  using Kind = transport::FaultOrder::Kind;
  std::map<std::pair<bool, bool>, size_t> ways;
  size_t num_headers = 0;
  for (uint64_t i = 0; i < 600; ++i) {
    const auto slow = planned_fault(7, {FaultKind::slow}, i).order;
    BOOST_TEST_REQUIRE((slow.kind == Kind::slowness && slow.factor == 10));
    const auto silent = planned_fault(7, {FaultKind::partition}, i).order;
    BOOST_TEST_REQUIRE((silent.kind == Kind::silence && silent.lasts >= 100ms));
    ++ways[{silent.of_input, silent.of_output}];
    const auto damaged = planned_fault(7, {FaultKind::corrupt}, i).order;
    BOOST_TEST_REQUIRE((damaged.kind == Kind::damage));
    num_headers += damaged.of_header;
    for (const auto& order : {slow, silent, damaged})
      BOOST_TEST_REQUIRE(transport::check_fault(order).ok());
    for (const FaultKind kind : {FaultKind::stop, FaultKind::kill_next, FaultKind::gateway_kill})
      BOOST_TEST_REQUIRE((planned_fault(7, {kind}, i).order.kind == Kind::nothing));
  }
  BOOST_TEST(ways.size() == 3u);
  for (const auto& [way, count] : ways) BOOST_TEST((count > 150 && count < 250), count);
  BOOST_TEST((num_headers > 250 && num_headers < 350), num_headers);
}

BOOST_AUTO_TEST_CASE(a_seed_is_a_load) {
  constexpr int32_t kVocabulary = 1000;
  size_t num_sampled = 0, num_pairs = 0, num_stops = 0, num_penalties = 0, num_shared = 0;
  std::vector<gateway::TokenIds> prompts;
  for (uint64_t i = 0; i < 400; ++i) {
    const gateway::GenerateRequest request = chaos_request(7, i, kVocabulary);
    const auto& prompt = std::get<gateway::TokenIds>(request.prompt);
    BOOST_TEST_REQUIRE(
        (prompt == std::get<gateway::TokenIds>(chaos_request(7, i, kVocabulary).prompt)));
    BOOST_TEST_REQUIRE((prompt.size() >= 20 && prompt.size() <= 400));
    BOOST_TEST_REQUIRE(validate(request.sampling, kVocabulary).ok());
    BOOST_TEST_REQUIRE(
        (request.sampling.max_new_tokens >= 100 && request.sampling.max_new_tokens <= 300));
    BOOST_TEST_REQUIRE(request.seed.has_value());
    num_sampled += request.sampling.temperature > 0;
    num_pairs += request.num_choices == 2;
    num_stops += !request.sampling.stop.empty();
    num_penalties +=
        request.sampling.repetition_penalty != 1 || request.sampling.presence_penalty != 0;
    num_shared += std::any_of(prompts.begin(), prompts.end(), [&](const gateway::TokenIds& other) {
      return std::equal(other.begin(), other.begin() + 16, prompt.begin());
    });
    prompts.push_back(prompt);
  }
  BOOST_TEST((num_sampled > 160 && num_sampled < 240), num_sampled);
  for (const size_t count : {num_pairs, num_stops}) BOOST_TEST((count > 50 && count < 110), count);
  BOOST_TEST((num_penalties > 120 && num_penalties < 200), num_penalties);
  BOOST_TEST((num_shared > 80 && num_shared < 160), num_shared);
}

BOOST_AUTO_TEST_CASE(a_load_of_short_requests) {
  for (const int32_t positions : {kChaosPositionsMin, 64, 300, kChaosPositions})
    for (uint64_t i = 0; i < 400; ++i) {
      const gateway::GenerateRequest request = chaos_request(7, i, 1000, positions);
      const size_t prompt = std::get<gateway::TokenIds>(request.prompt).size();
      const int32_t all = static_cast<int32_t>(prompt) + request.sampling.max_new_tokens;
      BOOST_TEST_REQUIRE((prompt >= 9 && request.sampling.max_new_tokens >= 2), positions);
      BOOST_TEST_REQUIRE(all <= positions);
    }
}

BOOST_AUTO_TEST_CASE(answers_compared) {
  struct Case {
    const char* what;
    std::vector<gateway::Delta> deltas;
    int64_t lost, duplicated, differing;
  };
  for (const Case& each : std::initializer_list<Case>{
           {"as it should be", {delta(0, {10, 11}), delta(2, {12, 13})}, 0, 0, 0},
           {"nothing", {}, 4, 0, 0},
           {"the last is missing", {delta(0, {10, 11, 12})}, 1, 0, 0},
           {"one in the middle is missing", {delta(0, {10}), delta(2, {12, 13})}, 1, 0, 1},
           {"two come again", {delta(0, {10, 11}), delta(0, {10, 11, 12, 13})}, 0, 2, 1},
           {"one is another", {delta(0, {10, 99, 12, 13})}, 0, 0, 1},
           {"one too many", {delta(0, {10, 11, 12, 13, 14})}, 0, 0, 2},
           {"of another choice", {delta(0, {10, 11, 12, 13}), delta(0, {1, 2}, 1)}, 0, 0, 2},
       }) {
    const Comparison found = compared(each.deltas);
    BOOST_TEST(found.lost == each.lost, each.what);
    BOOST_TEST(found.duplicated == each.duplicated, each.what);
    BOOST_TEST(found.differing == each.differing, each.what);
    BOOST_TEST(found.is_equal() == found.first.empty(), each.what);
  }
  BOOST_TEST(compared({delta(0, {10, 11, 12, 13})}, true, graph::FinishReason::stop).differing ==
             1);
  // Of one that was cut short, what came counts.
  BOOST_TEST(compared({delta(0, {10, 11})}, false).is_equal());
  BOOST_TEST(compared({}, false).is_equal());
  BOOST_TEST(compared({delta(0, {10, 12})}, false).differing == 1);
  BOOST_TEST(compared({delta(1, {11})}, false).lost == 1);
  BOOST_TEST(compared({delta(0, {10, 99, 12, 13})}).first == "choice 0, token 1: is another");
}

BOOST_AUTO_TEST_CASE(gaps) {
  const auto at = [](int64_t ms) { return TimePoint{std::chrono::milliseconds(ms)}; };
  const std::vector<TimePoint> tokens = {at(10),  at(20),  at(30),  at(500),
                                         at(900), at(910), at(2000)};
  const auto gap = [&](int64_t fault, int64_t went_on) {
    const auto found = gap_across(tokens, at(fault), at(went_on));
    return found ? to_ms(*found) : -1;
  };
  BOOST_TEST(gap(35, 450) == 470);
  BOOST_TEST(gap(25, 450) == 470);  // what was on its way came first
  BOOST_TEST(gap(35, 901) == 470);
  BOOST_TEST(gap(600, 905) == 400);
  BOOST_TEST(gap(905, 911) == 1090);
  BOOST_TEST(gap(905, 910) == 10);
  BOOST_TEST(gap(5, 100) == -1);      // before the first
  BOOST_TEST(gap(2001, 3000) == -1);  // after the last
  BOOST_TEST(!gap_across({}, at(1), at(2)).has_value());
}

BOOST_AUTO_TEST_CASE(reports) {
  ChaosReport report = part(0);
  report.lost = 1;
  report.duplicated = 2;
  report.differing = 3;
  report.failed = 4;
  report.leaked_bytes = 5;
  report.leaked_fds = 6;
  report.find("what it was");
  FaultRecord second = record(1, {});
  second.went_on_ms = std::nullopt;
  second.in_recovery = true;
  second.foreign_pids = {5, 6};
  FaultRecord third = record(2, {1000});
  third.is_standby = true;  // its gaps are not of the figures
  report.refused_frames = 7;
  report.stale_frames = 8;
  second.point = "mid-frame";
  second.is_hit = true;
  second.second = "stage 'back'";
  second.second_pid = 9;
  second.changed_pids = {77, 5, 6};
  second.recomputed = {4, 10, 3};
  second.recomputed_after = 3;
  third.point = "mid-frame";
  third.is_hit = false;
  third.num_unfinished = 5;
  third.recomputed = {0, 1};
  report.faults.push_back(second);
  report.faults.push_back(third);
  const auto json = chaos_json(report);
  for (const auto& [key, value] : std::map<std::string, double>{{"requests", 3},
                                                                {"faults", 3},
                                                                {"lost", 1},
                                                                {"duplicated", 2},
                                                                {"differing", 3},
                                                                {"failed", 4},
                                                                {"gap_p50_ms", 1},
                                                                {"gap_p99_ms", 2},
                                                                {"leaked_bytes", 5},
                                                                {"leaked_fds", 6},
                                                                {"met_min", 5},
                                                                {"recomputed_after", 3},
                                                                {"changed_pids", 3},
                                                                {"refused_frames", 7},
                                                                {"stale_frames", 8},
                                                                {"foreign_pids", 2}})
    BOOST_TEST(json.at(key).get<double>() == value, key);
  BOOST_TEST(json.at("points").dump() == R"({"mid-frame":{"tried":2,"hit":1}})");
  BOOST_TEST(json.at("recomputed").dump() == "[4,11,3]");
  BOOST_TEST(json.at("each").at(1).at("hit") == true);
  BOOST_TEST(json.at("each").at(0).at("second").is_null());
  BOOST_TEST(json.at("each").at(0).at("gap_ms") == 2);
  BOOST_TEST(json.at("each").at(1).at("gap_ms").is_null());
  const auto again = chaos_report_of(nlohmann::json::parse(json.dump()));
  BOOST_TEST_REQUIRE(again.ok(), fakes::why(again));
  BOOST_TEST((again->faults == report.faults));
  BOOST_TEST(chaos_json(*again).dump() == json.dump());
  BOOST_TEST(chaos_table(report).find("1 tokens lost, 2 duplicated, 3 differing, 4 requests") !=
             std::string::npos);
  for (const char* text : {"", "1", "{}", "[]", R"({"requests": "3"})"})
    BOOST_TEST(!chaos_report_of(nlohmann::json::parse(text, nullptr, false)).ok(), text);
  auto damaged = json;
  damaged["each"][0].erase("pid");
  BOOST_TEST(!chaos_report_of(nlohmann::json::parse(damaged.dump())).ok());
}

BOOST_AUTO_TEST_CASE(one_wrong_count_is_not_good) {
  BOOST_TEST(ChaosReport().is_good());
  for (int64_t ChaosReport::*count :
       {&ChaosReport::lost, &ChaosReport::duplicated, &ChaosReport::differing, &ChaosReport::failed,
        &ChaosReport::stale_frames}) {
    ChaosReport report;
    report.*count = 1;
    BOOST_TEST(!report.is_good());
  }
}

BOOST_AUTO_TEST_CASE(a_state_goes_on_after_its_last_whole_line) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "state").string();
  const nlohmann::ordered_json run = {{"seed", 1}};
  {
    auto state = ChaosState::open(path, run);
    BOOST_TEST_REQUIRE(state.ok(), fakes::why(state));
    BOOST_TEST(state->report().faults.empty());
    BOOST_TEST(state->add(part(0)).ok());
    BOOST_TEST(state->add(part(1)).ok());
    BOOST_TEST((ChaosState::open(path, run).error().code == ErrorCode::overloaded));
  }
  std::ofstream(path, std::ios::app) << "{\"requests\": 3, \"lo";
  {
    auto state = ChaosState::open(path, run);
    BOOST_TEST_REQUIRE(state.ok(), fakes::why(state));
    BOOST_TEST(state->report().num_requests == 6);
    BOOST_TEST(state->report().faults.size() == 2u);
    BOOST_TEST(state->add(part(2)).ok());
  }
  BOOST_TEST(ChaosState::open(path, run)->report().faults.size() == 3u);
  BOOST_TEST((ChaosState::open(path, {{"seed", 2}}).error().code == ErrorCode::bad_file));
  std::ofstream(path, std::ios::app) << "what\n";
  BOOST_TEST((ChaosState::open(path, run).error().code == ErrorCode::bad_file));
  BOOST_TEST(!ChaosState::open((folder.path() / "no/state").string(), run).ok());
}

BOOST_AUTO_TEST_CASE(processes) {
  int fds[2];
  BOOST_REQUIRE(::pipe(fds) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte;
    ::close(fds[1]);
    ::_exit(static_cast<int>(::read(fds[0], &byte, 1)));
  }
  const auto name = name_of(child);
  BOOST_REQUIRE(name.has_value());
  const auto children = children_of(::getpid());
  BOOST_TEST((std::find(children.begin(), children.end(), *name) != children.end()));
  BOOST_TEST(!arguments_of(child).empty());
  const auto held = holdings_of(child);
  BOOST_REQUIRE(held.has_value());
  BOOST_TEST(held->private_bytes > 0);
  BOOST_TEST(held->num_fds >= 4);
  BOOST_TEST(!open_process({.pid = child, .started = name->started + 1}).ok());
  const auto process = open_process(*name);
  BOOST_TEST_REQUIRE(process.ok(), fakes::why(process));
  BOOST_TEST(send_signal(*process, SIGKILL));
  siginfo_t info{};
  BOOST_TEST(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
  BOOST_TEST(!name_of(child).has_value());  // only to be reaped
  BOOST_TEST(::waitpid(child, nullptr, 0) == child);
  BOOST_TEST(!send_signal(*process, SIGKILL));
  BOOST_TEST(!holdings_of(child).has_value());
  BOOST_TEST(arguments_of(child).empty());
  BOOST_TEST((open_process(*name).error().code == ErrorCode::not_found));
  ::close(fds[0]);
  ::close(fds[1]);
}

}  // namespace chainpump::cli
