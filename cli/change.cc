#include "cli/change.h"

#include <fmt/ranges.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/change_plan.h"
#include "cli/coordinator_call.h"
#include "cli/exit_status.h"
#include "cli/status.h"
#include "cli/yaml_output.h"
#include "graph/graph_change.h"
#include "graph/plan_change.h"

namespace chainpump::cli {
namespace {

namespace rpc = transport::rpc;
using Json = nlohmann::ordered_json;

int fail(const Error& error) {
  std::fprintf(stderr, "chainpump: %s\n", error.message.c_str());
  return exit_status(error.code);
}

int print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return 0;
  std::fprintf(stderr, "chainpump: standard output cannot be written\n");
  return 5;
}

bool is_in_place(const WantedChange& change) {
  return !ranks_differ(change.plan_now, change.plan_next);
}

struct NewRank {
  RankId rank;
  const graph::StagePlan* stage = nullptr;
  std::vector<uint8_t> lanes;
  std::vector<uint32_t> copied_from;
};

std::vector<NewRank> new_ranks(const WantedChange& change) {
  std::vector<NewRank> ranks;
  if (is_in_place(change)) return ranks;
  const graph::Plan& next = change.plan_next;
  const std::vector<graph::KvRoute> routes = kv_routes(change.plan_now, next);
  for (uint32_t i = 0; i < static_cast<uint32_t>(num_ranks(next)); ++i) {
    NewRank& rank = ranks.emplace_back();
    rank.rank = RankId(i);
    rank.stage = &next.stages[static_cast<size_t>(place_of(next, RankId(i)).stage.value)];
    for (const graph::LaneId lane : lanes_of(next, RankId(i))) rank.lanes.push_back(lane.value);
    for (const graph::KvRoute& route : routes)
      if (route.to == RankId(i)) rank.copied_from.push_back(route.from.value);
  }
  return ranks;
}

Json tree_of(const WantedChange& change) {
  Json json = {{"service", change.service},
               {"keys", Json::array()},
               {"in_place", is_in_place(change)},
               {"ranks", Json::array()},
               {"lanes", {num_lanes(change.plan_now), num_lanes(change.plan_next)}},
               {"needed_bytes", change.needed_bytes},
               {"available_bytes", change.available_bytes},
               {"possible", change.may.ok()},
               {"why_not", change.may.ok() ? "" : change.may.error().message}};
  for (const graph::KeyDifference& each : differences(change.graph_now, change.graph_next))
    json["keys"].push_back({{"key", each.key},
                            {"before", each.before},
                            {"after", each.after},
                            {"apply", to_string(each.change)}});
  for (const NewRank& rank : new_ranks(change))
    json["ranks"].push_back({{"rank", rank.rank.value},
                             {"name", rank_name(change.plan_next, rank.rank)},
                             {"layers", {rank.stage->layer_begin, rank.stage->layer_end}},
                             {"lanes", rank.lanes},
                             {"copied_from", rank.copied_from}});
  return json;
}

std::string what_becomes_of_lanes(int32_t before, int32_t after) {
  if (after > before)
    return fmt::format("{} lanes, as before {}; the new ones begin empty\n", after, before);
  if (after < before)
    return fmt::format(
        "{} lanes instead of {}: what runs in the others then goes on in these, computed again\n",
        after, before);
  return fmt::format("every request keeps its lane ({} of them)\n", before);
}

std::string table_of(const WantedChange& change) {
  std::string out;
  for (const graph::KeyDifference& each : differences(change.graph_now, change.graph_next))
    out += fmt::format("{:<28} {} -> {}  ({})\n", each.key,
                       each.before.empty() ? "not there" : each.before,
                       each.after.empty() ? "not there" : each.after, to_string(each.change));
  if (out.empty()) out = "no key differs\n";
  if (is_in_place(change)) return out + "no rank moves: it is taken over in place\n";
  for (const NewRank& rank : new_ranks(change))
    out += fmt::format("new rank {:<3} {:<28} layers {}-{}, lanes {}: {}\n", rank.rank.value,
                       rank_name(change.plan_next, rank.rank), rank.stage->layer_begin,
                       rank.stage->layer_end - 1, fmt::join(rank.lanes, ","),
                       rank.copied_from.empty() ? "begins empty"
                                                : fmt::format("KV copied from rank {}",
                                                              fmt::join(rank.copied_from, ",")));
  out += what_becomes_of_lanes(num_lanes(change.plan_now), num_lanes(change.plan_next));
  return out +
         fmt::format(
             "beside the {} ranks that serve meanwhile they take {:.1f} MB; {:.1f} MB are free\n",
             num_ranks(change.plan_now), static_cast<double>(change.needed_bytes) / 1e6,
             static_cast<double>(change.available_bytes) / 1e6);
}

Status carry_out(const WantedChange& change) {
  RETURN_IF_ERROR(change.may);
  const bool differs =
      is_in_place(change) ? !differences(change.graph_now, change.graph_next).empty() : true;
  std::fprintf(stderr, "[changing service '%s': %s]\n", change.service.c_str(),
               !differs ? "nothing differs"
               : is_in_place(change)
                   ? "in place"
                   : fmt::format("{} new ranks beside {}", num_ranks(change.plan_next),
                                 num_ranks(change.plan_now))
                         .c_str());
  return call_coordinator(
      change.folder, [&](rpc::CoordinatorClient& client, Duration deadline,
                         rpc::OnMoveProgress on_progress, rpc::Callback<Ok> callback) {
        client.change(change.spec, deadline, std::move(on_progress), std::move(callback));
      });
}

int done(const Status& changed) { return changed.ok() ? 0 : fail(changed.error()); }

}  // namespace

void add_change_verbs(CLI::App& app, ChangeOptions& options, std::string& output) {
  CLI::App& diff =
      *app.add_subcommand("diff", "what it takes to change a service to another graph");
  add_plan_flags(diff, options.deploy);
  diff.add_option("-o", output, "table, json or yaml")
      ->check(CLI::IsMember({"table", "json", "yaml"}));
  CLI::App& apply =
      *app.add_subcommand("apply", "change a service to another graph while its requests run");
  add_plan_flags(apply, options.deploy);
  CLI::App& scale =
      *app.add_subcommand("scale", "give a stage of a service more replicas, or fewer");
  scale.add_option("stage", options.scale, "STAGE=N: the stage's name, and how many")->required();
  scale.add_option("name", options.service, "a service's name; the only one if not given");
}

int run_diff(const ChangeOptions& options) {
  const Result<WantedChange> change = wanted_by(deploy_options(options.deploy));
  if (!change.ok()) return fail(change.error());
  const Json tree = tree_of(*change);
  const int printed = print(options.output == "yaml"   ? to_yaml(tree)
                            : options.output == "json" ? tree.dump(2) + "\n"
                                                       : table_of(*change));
  return printed != 0 ? printed : done(change->may);
}

int run_apply(const ChangeOptions& options) {
  const Result<WantedChange> change = wanted_by(deploy_options(options.deploy));
  if (!change.ok()) return fail(change.error());
  return done(carry_out(*change));
}

int run_scale(const ChangeOptions& options) {
  std::string name = options.service;
  if (name.empty()) {
    const auto service = find_service("");
    if (!service.ok()) return fail(service.error());
    name = (*service)->deployment().graph_name;
  }
  const Result<WantedChange> change = scaled(name, options.scale);
  if (!change.ok()) return fail(change.error());
  return done(carry_out(*change));
}

}  // namespace chainpump::cli
