// What the conversions of both schemas (control and public) share: lists, texts, enums, traces, and
// the sampling parameters, whose fields have the same names in either schema and in either struct.
// Each side checks the values where it takes them. Includes the RPC library's headers: for
// convert*.cc and what else stands behind the walls.
#pragma once

#include <capnp/blob.h>
#include <capnp/list.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/step_trace.h"
#include "transport/rpc/loop.h"

namespace chainpump::transport::rpc {

template <typename T>
uint32_t num(const std::vector<T>& values) {
  return static_cast<uint32_t>(values.size());
}

inline std::string text(capnp::Text::Reader in) { return std::string(in.begin(), in.size()); }
inline capnp::Text::Reader text(const std::string& in) { return {in.c_str(), in.size()}; }

/// The schema's enums count like ours; `last` is the greatest known.
template <typename Ours, typename Theirs>
Ours checked(Theirs value, Ours last) {
  if (static_cast<int>(value) > static_cast<int>(last))
    kj::throwFatalException(to_exception(make_error(
        ErrorCode::invalid_argument, "unknown value {} in a message (an enum of at most {})",
        static_cast<int>(value), static_cast<int>(last))));
  return static_cast<Ours>(value);
}

inline void write_texts(capnp::List<capnp::Text>::Builder out, const std::vector<std::string>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) out.set(i, text(in[i]));
}

inline void write_ints(capnp::List<int32_t>::Builder out, const std::vector<int32_t>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) out.set(i, in[i]);
}
inline std::vector<int32_t> read_ints(capnp::List<int32_t>::Reader in) {
  std::vector<int32_t> out(in.size());
  for (uint32_t i = 0; i < in.size(); ++i) out[i] = in[i];
  return out;
}

inline void write_bytes(capnp::List<uint8_t>::Builder out, const std::vector<uint8_t>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) out.set(i, in[i]);
}
inline std::vector<uint8_t> read_bytes(capnp::List<uint8_t>::Reader in) {
  std::vector<uint8_t> out(in.size());
  for (uint32_t i = 0; i < in.size(); ++i) out[i] = in[i];
  return out;
}

/// Elements may come without bytes: a few words can claim millions, and cost them here. No list of
/// structs that means anything is longer than this.
inline constexpr uint32_t kStructsMax = 1 << 16;

/// A list of structs, unless it claims too much.
template <typename ListReader>
ListReader checked_list(ListReader in) {
  if (in.size() > kStructsMax)
    kj::throwFatalException(to_exception(
        make_error(ErrorCode::invalid_argument, "a list of {} elements in a message; at most {}",
                   in.size(), kStructsMax)));
  return in;
}

inline std::vector<std::string> read_texts(capnp::List<capnp::Text>::Reader in) {
  std::vector<std::string> out;
  for (const auto each : checked_list(in)) out.push_back(text(each));
  return out;
}

/// A list of the schema's TokenFloat.
template <typename ListBuilder>
void write_pairs(ListBuilder out, const std::vector<std::pair<int32_t, float>>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) {
    out[i].setToken(in[i].first);
    out[i].setValue(in[i].second);
  }
}
template <typename ListReader>
std::vector<std::pair<int32_t, float>> read_pairs(ListReader in) {
  std::vector<std::pair<int32_t, float>> out;
  for (const auto pair : checked_list(in)) out.emplace_back(pair.getToken(), pair.getValue());
  return out;
}

/// All sampling parameters but the seed, which the public schema may leave open.
template <typename Builder, typename Params>
void write_sampling(Builder out, const Params& in) {
  out.setTemperature(in.temperature);
  out.setTopP(in.top_p);
  out.setMinP(in.min_p);
  out.setTopK(in.top_k);
  out.setRepetitionPenalty(in.repetition_penalty);
  out.setPresencePenalty(in.presence_penalty);
  out.setFrequencyPenalty(in.frequency_penalty);
  write_pairs(out.initLogitBias(num(in.logit_bias)), in.logit_bias);
  out.setMaxNewTokens(in.max_new_tokens);
  out.setIgnoreEos(in.ignore_eos);
  auto stop = out.initStop(num(in.stop));
  for (uint32_t i = 0; i < stop.size(); ++i)
    stop.set(i,
             kj::arrayPtr(reinterpret_cast<const kj::byte*>(in.stop[i].data()), in.stop[i].size()));
  write_ints(out.initStopTokenIds(num(in.stop_token_ids)), in.stop_token_ids);
  out.setNumTopLogprobs(in.num_top_logprobs);
}
template <typename Params, typename Reader>
Params read_sampling(Reader in) {
  Params out;
  out.temperature = in.getTemperature();
  out.top_p = in.getTopP();
  out.min_p = in.getMinP();
  out.top_k = in.getTopK();
  out.repetition_penalty = in.getRepetitionPenalty();
  out.presence_penalty = in.getPresencePenalty();
  out.frequency_penalty = in.getFrequencyPenalty();
  out.logit_bias = read_pairs(in.getLogitBias());
  out.max_new_tokens = in.getMaxNewTokens();
  out.ignore_eos = in.getIgnoreEos();
  for (const auto stop : in.getStop())
    out.stop.emplace_back(reinterpret_cast<const char*>(stop.begin()), stop.size());
  out.stop_token_ids = read_ints(in.getStopTokenIds());
  out.num_top_logprobs = in.getNumTopLogprobs();
  return out;
}

/// A trace: its events have the same fields in either schema.
template <typename Builder>
void write_steps(Builder out, const StepEvents& in) {
  auto events = out.initEvents(num(in.events));
  for (uint32_t i = 0; i < events.size(); ++i) {
    const StepEvent& event = in.events[i];
    events[i].setMicrobatch(event.microbatch.value);
    events[i].setLane(event.lane);
    events[i].setNumTokens(event.num_tokens);
    events[i].setReceivedNs(event.received.since_epoch.count());
    events[i].setCreditFromNs(event.credit_from.since_epoch.count());
    events[i].setCreditUntilNs(event.credit_until.since_epoch.count());
    events[i].setComputeFromNs(event.compute_from.since_epoch.count());
    events[i].setComputeUntilNs(event.compute_until.since_epoch.count());
    events[i].setSentNs(event.sent.since_epoch.count());
  }
  out.setNext(in.next);
  out.setLost(in.lost);
  out.setNowNs(in.now.since_epoch.count());
}
template <typename Reader>
StepEvents read_steps(Reader in) {
  const auto time = [](int64_t ns) { return TimePoint{Duration(ns)}; };
  if (in.getEvents().size() > StepTrace::kMaxEvents)
    kj::throwFatalException(to_exception(
        make_error(ErrorCode::internal, "a trace of {} events", in.getEvents().size())));
  StepEvents out;
  for (const auto event : in.getEvents())
    out.events.push_back({.microbatch = MicrobatchId(event.getMicrobatch()),
                          .lane = event.getLane(),
                          .num_tokens = event.getNumTokens(),
                          .received = time(event.getReceivedNs()),
                          .credit_from = time(event.getCreditFromNs()),
                          .credit_until = time(event.getCreditUntilNs()),
                          .compute_from = time(event.getComputeFromNs()),
                          .compute_until = time(event.getComputeUntilNs()),
                          .sent = time(event.getSentNs())});
  out.next = in.getNext();
  out.lost = in.getLost();
  out.now = time(in.getNowNs());
  return out;
}

}  // namespace chainpump::transport::rpc
