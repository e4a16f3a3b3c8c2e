#include "actors/rank_lanes.h"

#include <algorithm>

#include "actors/convert.h"
#include "actors/sequencer_options.h"
#include "base/check.h"

namespace chainpump::actors {
namespace {

/// What concerns the edge among what a rank was told to open, or null.
template <typename Target>
const Target* find_edge(const std::vector<Target>& targets, EdgeId edge) {
  const auto found = std::find_if(targets.begin(), targets.end(),
                                  [&](const Target& target) { return target.edge == edge.value; });
  return found == targets.end() ? nullptr : &*found;
}

}  // namespace

RankLanes::RankLanes(const graph::Plan& plan, RankId rank, std::shared_ptr<LoopbackHub> hub,
                     std::shared_ptr<transport::Waiter> waiter, std::shared_ptr<StepTrace> trace,
                     models::StageExecutor& executor, transport::ArmedFault& fault,
                     const Clock& clock)
    : plan_(plan),
      stage_(place_of(plan, rank).stage),
      waiter_(std::move(waiter)),
      trace_(std::move(trace)),
      fault_(fault),
      clock_(clock),
      links_(std::move(hub), &fault),
      step_clock_(clock) {
  const auto own = static_cast<size_t>(stage_.value);
  for (const graph::LaneId id : lanes_of(plan, rank)) {
    Lane& lane = lanes_.emplace_back();
    lane.id = id;
    lane.epoch = plan.epoch;
    lane.input_edge = is_first() ? plan.edges.back() : plan.edges[own - 1];
    lane.output_edge = plan.edges[own];
    for (graph::EdgePlan* edge : {&lane.input_edge, &lane.output_edge})
      edge->id = link_of(plan, id, edge->id);
  }
  std::vector<StageLoop*> loops;
  for (Lane& lane : lanes_) {
    make_loop(lane, executor);
    loops.push_back(lane.loop.get());
  }
  turns_.emplace(std::move(loops), step_clock_, *waiter_);
}

RankLanes::~RankLanes() = default;

void RankLanes::make_loop(Lane& lane, models::StageExecutor& executor) {
  const KvBlockId first_block = first_kv_block(plan_, lane.id, stage_);
  lane.executor =
      std::make_unique<LaneExecutor>(executor, LaneShare{.first_kv_block = first_block,
                                                         .num_kv_blocks = plan_.kv.num_blocks,
                                                         .max_sequences = plan_.max_sequences});
  StageLoopOptions options;
  options.work = {.lane = lane.id.value,
                  .stage = stage_,
                  .is_first = is_first(),
                  .is_last = static_cast<size_t>(stage_.value) + 1 == plan_.stages.size(),
                  .first_kv_block = first_block.value,
                  .replay_log_bytes = plan_.replay_log_bytes / lanes_per_rank(plan_, stage_),
                  .fault = &fault_};
  options.trace = trace_;
  options.account = &account_;
  if (is_first())
    options.sequencer = sequencer_options(plan_, lane.id, executor.limits().vocabulary_size);
  lane.loop = std::make_unique<StageLoop>(
      options, *lane.executor,
      [&lane](const graph::Deliveries& deliveries) { lane.server->deliver(deliveries); }, *waiter_,
      step_clock_);
  if (is_first()) lane.server = std::make_unique<LaneServer>(plan_, lane.loop->sequencer(), clock_);
}

Result<std::pair<std::string, uint16_t>> RankLanes::listen(const std::string& address) {
  // The lanes' edges differ in nothing but their ids.
  return links_.listen(lanes_.front().input_edge, lanes_.front().output_edge, address);
}

RankLanes::Lane* RankLanes::find(graph::LaneId id) {
  const auto found =
      std::find_if(lanes_.begin(), lanes_.end(), [&](const Lane& lane) { return lane.id == id; });
  return found == lanes_.end() ? nullptr : &*found;
}

/// Those whose links are to be opened, each with both.
Result<std::vector<RankLanes::Lane*>> RankLanes::lanes_named(const rpc::ConnectParams& params) {
  std::vector<Lane*> named;
  for (Lane& lane : lanes_) {
    const bool out = find_edge(params.links, lane.output_edge.id) != nullptr;
    const bool in = find_edge(params.accept, lane.input_edge.id) != nullptr;
    if (out && in) named.push_back(&lane);
    if (out == in) continue;
    return make_error(ErrorCode::invalid_argument,
                      "a stage of a chain has one link in and one out for each of its lanes: "
                      "lane {} has {} in and {} out",
                      lane.id, lane.input_edge.id, lane.output_edge.id);
  }
  if (named.empty() || named.size() != params.links.size() || named.size() != params.accept.size())
    return make_error(ErrorCode::invalid_argument,
                      "{} links out and {} in were named, of which {} lanes of this rank have one "
                      "each",
                      params.links.size(), params.accept.size(), named.size());
  return named;
}

Status RankLanes::check_connect(const Lane& lane, const rpc::ConnectParams& params) const {
  if (params.epoch < lane.epoch.value)
    return make_error(ErrorCode::invalid_argument, "lane {}: epoch {} is over, it is {}", lane.id,
                      params.epoch, lane.epoch);
  if (!lane.loop->is_cut() || lane.input)
    return make_error(ErrorCode::invalid_argument, "lane {}: has links already", lane.id);
  return ok_status();
}

Status RankLanes::open(Lane& lane, const rpc::ConnectParams& params) {
  if (params.epoch > plan_.epoch.value) fault_.pass(transport::FaultPoint::connecting);
  const bool is_new = !lane.was_linked && params.epoch > plan_.epoch.value;
  lane.epoch = PlanEpoch(params.epoch);
  lane.was_linked = true;
  if (is_first() && is_new) {
    lane.awaited = true;
    lane.loop->hold();
  }
  ASSIGN_OR_RETURN(lane.input, links_.accept(lane.input_edge, lane.epoch,
                                             *find_edge(params.accept, lane.input_edge.id)));
  ASSIGN_OR_RETURN(lane.output, links_.connect(lane.output_edge, lane.epoch,
                                               *find_edge(params.links, lane.output_edge.id)));
  lane.input_incarnation = find_edge(params.accept, lane.input_edge.id)->incarnation;
  lane.output_incarnation = find_edge(params.links, lane.output_edge.id)->incarnation;
  return ok_status();
}

/// Those that are being opened.
void RankLanes::forget_links(const std::vector<Lane*>& lanes) {
  for (Lane* lane : lanes) {
    lane->input.reset();
    lane->output.reset();
  }
}

void RankLanes::connect(ConnectCommand command) {
  Result<std::vector<Lane*>> named = lanes_named(command.params);
  if (!named.ok()) return command.reply(named.error());
  for (const Lane* lane : *named)
    if (const Status may = check_connect(*lane, command.params); !may.ok())
      return command.reply(may.error());
  for (Lane* lane : *named) {
    const Status opened = open(*lane, command.params);
    if (opened.ok()) continue;
    forget_links(*named);
    return command.reply(opened.error());
  }
  openings_.push_back({std::move(*named), std::move(command.reply)});
}

Result<bool> RankLanes::is_open(Lane& lane) const {
  lane.input->progress();
  lane.output->progress();
  bool all_open = true;
  const auto check = [&](const auto& link, const char* which) -> Status {
    all_open &= link.state() == transport::LinkState::open;
    if (link.state() != transport::LinkState::failed) return ok_status();
    const Error& why = link.error();
    return named(lane, make_error(why.code, "{} link: {}", which, why.message));
  };
  RETURN_IF_ERROR(check(*lane.input, "input"));
  RETURN_IF_ERROR(check(*lane.output, "output"));
  return all_open;
}

bool RankLanes::progress_openings() {
  bool moved = false;
  for (size_t i = 0; i < openings_.size();) {
    Result<bool> all_open = true;
    for (Lane* lane : openings_[i].lanes) {
      const Result<bool> open = is_open(*lane);
      if (!open.ok() || !*open) all_open = open;
      if (!open.ok()) break;
    }
    if (all_open.ok() && !*all_open) {
      ++i;
      continue;
    }
    moved = true;
    if (!all_open.ok()) {
      abandon(*openings_[i].lanes.front(), all_open.error());
      continue;
    }
    Opening opened = std::move(openings_[i]);
    openings_.erase(openings_.begin() + static_cast<ptrdiff_t>(i));
    links_.watch_network();
    for (Lane* lane : opened.lanes) {
      lane->told_broken = false;
      lane->loop->link(std::move(lane->input), std::move(lane->output), lane->epoch);
      if (lane->server && !lane->loop->is_held()) lane->server->begin(lane->epoch);
    }
    if (std::none_of(lanes_.begin(), lanes_.end(), [](const Lane& l) { return l.loop->is_cut(); }))
      links_.shut();
    if (!std::exchange(begun_, true)) step_clock_.restart();
    opened.reply(Ok{});
  }
  return moved;
}

/// The links that are being opened with this lane's.
void RankLanes::abandon(Lane& lane, const Error& why) {
  const auto found = std::find_if(openings_.begin(), openings_.end(), [&](const Opening& opening) {
    return std::find(opening.lanes.begin(), opening.lanes.end(), &lane) != opening.lanes.end();
  });
  if (found == openings_.end()) return;
  Opening abandoned = std::move(*found);
  openings_.erase(found);
  forget_links(abandoned.lanes);
  abandoned.reply(why);
}

void RankLanes::fence(FenceCommand command) {
  Lane* const lane = find(command.lane);
  if (lane == nullptr)
    return command.reply(
        make_error(ErrorCode::invalid_argument, "this rank does not serve lane {}", command.lane));
  if (command.epoch <= lane->epoch)
    return command.reply(make_error(ErrorCode::invalid_argument,
                                    "lane {}: epoch {} is over, it is {}", command.lane,
                                    command.epoch, lane->epoch));
  fault_.pass(transport::FaultPoint::fencing);
  lane->epoch = command.epoch;
  const Error over =
      make_error(ErrorCode::cancelled, "lane {}: epoch {} began", lane->id, lane->epoch);
  abandon(*lane, over);
  if (!lane->fenced.answered()) lane->fenced(over);
  lane->fenced = std::move(command.reply);
  lane->loop->fence();
  answer_fences();
}

bool RankLanes::answer_fences() {
  bool any = false;
  for (Lane& lane : lanes_) {
    if (lane.fenced.answered() || !lane.loop->is_cut()) continue;
    any = true;
    const Result<uint16_t> port = links_.open();
    if (!port.ok()) {
      lane.fenced(port.error());
      continue;
    }
    rpc::StageHoldings holdings = to_wire(lane.loop->holdings());
    holdings.listen_port = *port;
    lane.fenced(std::move(holdings));
  }
  return any;
}

void RankLanes::resume(ResumeCommand command) {
  Lane* const lane = find(command.lane);
  if (lane == nullptr || !lane->server)
    return command.reply(make_error(ErrorCode::invalid_argument,
                                    "this rank is not the first of lane {}", command.lane));
  if (command.epoch != lane->epoch || !lane->loop->at_work() || !lane->loop->is_held())
    return command.reply(make_error(ErrorCode::invalid_argument,
                                    "lane {}: has no open links of epoch {}, or was resumed",
                                    command.lane, command.epoch));
  std::vector<graph::StageHoldings> stages;
  for (const rpc::StageHoldings& stage : command.stages) {
    Result<graph::StageHoldings> holdings = from_wire(stage, plan_);
    if (!holdings.ok()) return command.reply(holdings.error());
    stages.push_back(std::move(*holdings));
  }
  lane->awaited = false;
  lane->loop->resume(stages);
  lane->server->begin(lane->epoch);
  command.reply(Ok{});
}

std::vector<rpc::LaneState> RankLanes::states() const {
  std::vector<rpc::LaneState> states;
  for (const Lane& lane : lanes_)
    states.push_back({.lane = lane.id.value,
                      .epoch = lane.epoch.value,
                      .linked = lane.was_linked || took_over_,
                      .at_work = lane.loop->at_work() && !lane.loop->is_held()});
  return states;
}

bool RankLanes::all_cut() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& l) { return l.loop->is_cut(); });
}

std::optional<Error> RankLanes::take_broken() {
  for (Lane& lane : lanes_) {
    if (!lane.loop->broken_by() || std::exchange(lane.told_broken, true)) continue;
    return named(lane, *lane.loop->broken_by());
  }
  return std::nullopt;
}

std::optional<Error> RankLanes::broken() const {
  for (const Lane& lane : lanes_)
    if (lane.loop->broken_by()) return named(lane, *lane.loop->broken_by());
  return std::nullopt;
}

Result<bool> RankLanes::step() {
  const bool opened = progress_openings();
  if (is_first()) send_canaries();
  Result<bool> moved = turns_->step();
  if (!moved.ok()) return named(lanes_[turns_->last()], moved.error());
  const bool answered = answer_fences();
  return *moved || opened || answered;
}

void RankLanes::send_canaries() {
  for (Lane& lane : lanes_)
    if (lane.loop->at_work() && !lane.loop->is_held()) lane.server->look_after(clock_.now());
}

void RankLanes::wait_until(TimePoint deadline) {
  for (const Lane& lane : lanes_)
    if (lane.server && lane.loop->at_work() && !lane.loop->is_held() &&
        lane.loop->sequencer().idle())
      deadline = std::min(deadline, lane.server->next_look().value_or(deadline));
  turns_->wait_until(deadline);
}

Error RankLanes::named(const Lane& lane, const Error& error) const {
  if (lanes_.size() == 1) return error;
  return make_error(error.code, "lane {}: {}", lane.id, error.message);
}

LaneServer* RankLanes::door(graph::LaneId lane) {
  Lane* const found = find(lane);
  const bool may_enter = found != nullptr && found->was_linked && !found->awaited;
  return may_enter ? found->server.get() : nullptr;
}

LaneServer* RankLanes::door_of(uint64_t client) {
  for (Lane& lane : lanes_)
    if (lane.server && lane.server->has(client)) return lane.server.get();
  return nullptr;
}

void RankLanes::end_all(const Error& why) {
  for (Lane& lane : lanes_) {
    if (lane.server) lane.server->end_all(why);
    abandon(lane, why);
    if (!lane.fenced.answered()) lane.fenced(why);
  }
}

void RankLanes::close() {
  for (Lane& lane : lanes_) lane.loop->close();
}

void RankLanes::drain() {
  for (Lane& lane : lanes_) lane.loop->drain();
}

bool RankLanes::closed() const {
  return std::all_of(lanes_.begin(), lanes_.end(),
                     [](const Lane& lane) { return lane.loop->closed(); });
}

}  // namespace chainpump::actors
