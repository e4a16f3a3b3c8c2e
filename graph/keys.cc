#include "graph/keys.h"

#include <array>

namespace chainpump::graph {
namespace {

constexpr int64_t kBytesMax = int64_t{1} << 50;

constexpr KeySpec kKeys[] = {
    {"version", KeyType::integer, KeyChange::in_place, "1", "Version of this file's format.", 1, 1},
    {"name", KeyType::name, KeyChange::restart, "graph", "Name of the deployment, for reports."},
    {"model",
     KeyType::text,
     KeyChange::restart,
     "none (then --model must be given)",
     "The weights, a GGUF file. A relative path starts at the graph file's folder.",
     0,
     0,
     false,
     {},
     "--model"},
    {"stages",
     KeyType::stages,
     KeyChange::moves,
     "1",
     "The stages: a number of decoder stages in a chain, or a list of them. A stage without "
     "`inputs` follows the one before it in the file.",
     1,
     1024,
     false,
     {},
     "--stages"},
    {"stages[].name", KeyType::name, KeyChange::moves, "stageN",
     "Name of the stage; `inputs` and reports use it."},
    {"stages[].op", KeyType::choice, KeyChange::restart, "decoder",
     "What the stage does. Only decoder runs in this release; the others are checked, and refused "
     "when planned.",
     0, 0, false, "decoder|encoder|torch|tokenize|pool|classify|merge"},
    {"stages[].inputs", KeyType::names, KeyChange::moves, "the stage before",
     "Stages whose output this one takes; any graph without a cycle. [] for a source."},
    {"stages[].layers", KeyType::layers, KeyChange::moves, "auto",
     "Layers of a decoder stage as FIRST-LAST, both included and counted from 0: 0-9 has ten, and "
     "the next stage begins with 10. All stages give them or none."},
    {"stages[].device", KeyType::device, KeyChange::moves, "auto",
     "Where the stage runs: auto, cpu, cpu:0-1 (logical cores, ends included), or cuda:N (refused "
     "when planned)."},
    {"stages[].threads", KeyType::integer, KeyChange::moves, "auto",
     "Threads that compute the stage.", 1, 1024, true},
    {"stages[].replicas", KeyType::integer, KeyChange::moves, "1",
     "Ranks that serve the stage side by side. The most that any stage has are the lanes: chains "
     "with a queue, credits and KV blocks of their own, each request on one, its tokens the same "
     "on any. Every other count must divide that; replica j of r serves each lane l with "
     "l mod r = j, and has a share of its blocks and slots for each. kv.budget and limits.memory "
     "are for all lanes together, other limits for each.",
     1, 64},
    {"stages[].standbys", KeyType::integer, KeyChange::moves, "0",
     "Ranks that have loaded the stage, too, with weights and KV blocks of their own, and take the "
     "place of its rank at once when that dies. Only for a stage with one replica in this release.",
     0, 64},
    {"stages[].nodes", KeyType::names, KeyChange::restart, "any",
     "Nodes of a cluster on which the stage may run, by name or by label, the best first: its rank "
     "and its replicas are spread over them in this order, its standbys over those after them, and "
     "what dies with its node is started on another of them. Without it the chain is laid over all "
     "nodes. Only for `chainpump serve --listen`."},
    {"stages[].module", KeyType::text, KeyChange::restart, "none",
     "Module of a torch stage. Running one runs its code."},
    {"stages[].trusted", KeyType::boolean, KeyChange::restart, "false",
     "A torch stage is accepted only with true."},
    {"partition", KeyType::choice, KeyChange::in_place, "auto",
     "How layers are cut into stages: auto balances the predicted time of the usual mix, four "
     "prompt tokens for each generated one, embedding and head counted in. (A single stream's time "
     "per token is the sum over the stages and hardly moves with the cut; what moves is the rate "
     "of many.)",
     0, 0, false, "auto"},
    {"threads",
     KeyType::integer,
     KeyChange::moves,
     "auto",
     "Threads of each stage that names none; auto divides the machine's cores among the stages.",
     1,
     1024,
     true,
     {},
     "--threads"},
    {"activations", KeyType::choice, KeyChange::restart, "int8",
     "How activations enter products with quantised weights: int8 in blocks of 32, or f32 as they "
     "are (slower; changes results).",
     0, 0, false, "int8|f32", "--activations"},
    {"batching", KeyType::section, KeyChange::section, "", "How requests are put together."},
    {"batching.prefill_chunk",
     KeyType::integer,
     KeyChange::moves,
     "256",
     "Prompt tokens in one microbatch. auto sizes each chunk, up to 512 tokens, by what steps have "
     "been measured to cost, so that the stages work side by side.",
     1,
     65536,
     true,
     {},
     "--prefill-chunk"},
    {"batching.decode_delay", KeyType::duration, KeyChange::moves, "100ms",
     "What prompts may add to the time between two tokens of a sequence that generates. Kept by "
     "prefill_chunk auto alone.",
     1, 60000},
    {"batching.max_sequences", KeyType::integer, KeyChange::moves, "32",
     "Sequences running at once.", 1, 4096},
    {"batching.max_queued", KeyType::integer, KeyChange::moves, "1024",
     "Sequences that may wait for one of those to end; more are refused, with the time after which "
     "there should be room.",
     1, 65536},
    {"batching.max_microbatches", KeyType::integer, KeyChange::moves, "auto",
     "Microbatches in flight; auto: one a stage.", 1, 1024, true},
    {"kv", KeyType::section, KeyChange::section, "", "The cache of keys and values."},
    {"kv.type", KeyType::choice, KeyChange::restart, "f32",
     "Element type of the cache; int8: with a scale per position and head.", 0, 0, false,
     "f32|bf16|f16|int8", "--kv-type"},
    {"kv.budget", KeyType::bytes, KeyChange::moves, "auto",
     "Memory for the cache, of all stages and standbys together. auto: what eight of the longest "
     "sequences "
     "take, at most a quarter of the memory.",
     1, kBytesMax, true},
    {"kv.blocks", KeyType::integer, KeyChange::moves, "auto",
     "Blocks of 32 tokens on every stage, instead of a budget.", 1, 1 << 24, true},
    {"kv.context",
     KeyType::integer,
     KeyChange::moves,
     "auto",
     "Longest sequence in tokens; auto: the model's, at most 8192, and what memory allows.",
     1,
     1 << 24,
     true,
     {},
     "--context"},
    {"kv.prefix_cache", KeyType::boolean, KeyChange::moves, "true",
     "Whether a prompt that begins like an earlier one takes over what that has computed."},
    {"links", KeyType::section, KeyChange::section, "", "The links between stages."},
    {"links.transport", KeyType::choice, KeyChange::moves, "auto", "auto takes tcp, the safe one.",
     0, 0, false, "auto|tcp|shared_memory", "--transport"},
    {"links.spin", KeyType::choice, KeyChange::moves, "auto",
     "Whether an idle rank polls: auto spins briefly and then sleeps, never where threads "
     "outnumber "
     "cores.",
     0, 0, false, "auto|always|never", "--spin"},
    {"links.credits", KeyType::integer, KeyChange::moves, "4",
     "Frames that may be under way on an edge.", 1, 64},
    {"links.checksum", KeyType::choice, KeyChange::moves, "auto",
     "Payload checksum; auto: on for TCP.", 0, 0, false, "auto|on|off"},
    {"links.wire", KeyType::choice, KeyChange::restart, "f32",
     "Element type on the wire. bf16 and int8 change results with the cut, and are refused when "
     "planned.",
     0, 0, false, "f32|bf16|int8"},
    {"failover", KeyType::section, KeyChange::section, "", "What happens when a rank has died."},
    {"failover.restarts", KeyType::integer, KeyChange::in_place, "5",
     "Ends of ranks, and of links, that are repaired within the window: another process takes the "
     "rank's place and requests go on. One more ends the deployment, which says why. 0: any does.",
     0, 1000},
    {"failover.window", KeyType::duration, KeyChange::in_place, "60s",
     "The time in which they are counted.", 1, 86400000},
    {"failover.slow", KeyType::choice, KeyChange::in_place, "flag",
     "What is done with a rank whose steps take ten times as long as they did, while others of its "
     "lane are as fast as ever. flag: `status`, `top` and standard error name it. evict: it is "
     "ended, too, and replaced like one that hangs, as long as that is within `failover.restarts`.",
     0, 0, false, "flag|evict"},
    {"replay_log", KeyType::bytes, KeyChange::moves, "auto",
     "Memory in which each rank but the last of a lane keeps what it has sent on, so that a stage "
     "after it that has lost its KV blocks is filled again without the ones before. 0: none. auto: "
     "what all positions of the rank's KV blocks take, at most 256MiB; none if nothing is "
     "repaired.",
     0, kBytesMax, true},
    {"limits", KeyType::section, KeyChange::section, "", "What the deployment may use."},
    {"limits.memory", KeyType::bytes, KeyChange::in_place, "what the machine has",
     "Memory for weights, cache and slots together.", 1, kBytesMax, true},
};

}  // namespace

std::string_view to_string(KeyType type) {
  switch (type) {
    case KeyType::text:
      return "text";
    case KeyType::name:
      return "name";
    case KeyType::integer:
      return "integer";
    case KeyType::bytes:
      return "bytes";
    case KeyType::boolean:
      return "true or false";
    case KeyType::duration:
      return "duration";
    case KeyType::choice:
      return "choice";
    case KeyType::layers:
      return "layers";
    case KeyType::device:
      return "device";
    case KeyType::names:
      return "list of names";
    case KeyType::section:
      return "section";
    case KeyType::stages:
      return "number or list";
  }
  return "?";
}

std::string_view to_string(KeyChange change) {
  switch (change) {
    case KeyChange::section:
      return "";
    case KeyChange::in_place:
      return "in place";
    case KeyChange::moves:
      return "ranks move";
    case KeyChange::restart:
      return "restart";
  }
  return "?";
}

std::span<const KeySpec> graph_keys() { return kKeys; }

const KeySpec* find_key(std::string_view path) {
  for (const KeySpec& key : kKeys)
    if (key.path == path) return &key;
  return nullptr;
}

std::vector<std::string_view> keys_below(std::string_view section) {
  std::vector<std::string_view> below;
  for (const KeySpec& key : kKeys) {
    std::string_view rest = key.path;
    if (!section.empty()) {
      if (!rest.starts_with(section) || rest.size() <= section.size() ||
          rest[section.size()] != '.')
        continue;
      rest.remove_prefix(section.size() + 1);
    }
    if (rest.find('.') == std::string_view::npos) below.push_back(rest);
  }
  return below;
}

std::vector<std::string_view> split_choices(std::string_view choices) {
  std::vector<std::string_view> parts;
  while (!choices.empty()) {
    const size_t bar = choices.find('|');
    parts.push_back(choices.substr(0, bar));
    choices.remove_prefix(bar == std::string_view::npos ? choices.size() : bar + 1);
  }
  return parts;
}

}  // namespace chainpump::graph
