#include "gateway/rpc/convert.h"

#include <string>
#include <utility>

#include "gateway/rpc/convert_helpers.h"

namespace chainpump::gateway::rpc {
namespace {

void write_pairs(capnp::List<api::TokenFloat>::Builder out,
                 const std::vector<std::pair<TokenId, float>>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) {
    out[i].setToken(in[i].first);
    out[i].setValue(in[i].second);
  }
}

std::vector<std::pair<TokenId, float>> read_pairs(capnp::List<api::TokenFloat>::Reader in) {
  std::vector<std::pair<TokenId, float>> out;
  for (const auto pair : in) out.emplace_back(pair.getToken(), pair.getValue());
  return out;
}

void write(api::Sampling::Builder out, const graph::SamplingParams& in) {
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
  write_ids(out.initStopTokenIds(num(in.stop_token_ids)), in.stop_token_ids);
  out.setNumTopLogprobs(in.num_top_logprobs);
}

graph::SamplingParams read(api::Sampling::Reader in) {
  graph::SamplingParams out;
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
  out.stop_token_ids = read_ids(in.getStopTokenIds());
  out.num_top_logprobs = in.getNumTopLogprobs();
  return out;
}

uint64_t to_deadline_ms(Duration deadline) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(deadline).count();
  return ms > 0 ? static_cast<uint64_t>(ms) : 1;
}

/// Beyond what is allowed, for Core to refuse, without overflow.
Duration from_deadline_ms(uint64_t ms) {
  constexpr uint64_t kTooMuch = 1'000'000'000;
  if (ms == 0) return kDeadlineMax;
  return std::chrono::milliseconds(std::min(ms, kTooMuch));
}

}  // namespace

void write_ids(capnp::List<int32_t>::Builder out, const TokenIds& in) {
  for (uint32_t i = 0; i < out.size(); ++i) out.set(i, in[i]);
}

TokenIds read_ids(capnp::List<int32_t>::Reader in) {
  TokenIds out(in.size());
  for (uint32_t i = 0; i < in.size(); ++i) out[i] = in[i];
  return out;
}

void write(api::Prompt::Builder out, const Prompt& in) {
  if (const auto* raw = std::get_if<RawText>(&in)) {
    out.setText(text(raw->text));
  } else if (const auto* chat = std::get_if<Chat>(&in)) {
    auto messages = out.initChat(num(chat->messages));
    for (uint32_t i = 0; i < messages.size(); ++i) {
      messages[i].setRole(text(chat->messages[i].role));
      messages[i].setContent(text(chat->messages[i].content));
      messages[i].setExtraJson(text(chat->messages[i].extra_json));
    }
  } else {
    const auto& ids = std::get<TokenIds>(in);
    write_ids(out.initIds(num(ids)), ids);
  }
}

Prompt read(api::Prompt::Reader in) {
  switch (in.which()) {
    case api::Prompt::TEXT:
      return RawText{text(in.getText())};
    case api::Prompt::CHAT: {
      Chat chat;
      for (const auto message : in.getChat())
        chat.messages.push_back({.role = text(message.getRole()),
                                 .content = text(message.getContent()),
                                 .extra_json = text(message.getExtraJson())});
      return chat;
    }
    case api::Prompt::IDS:
      return read_ids(in.getIds());
  }
  kj::throwFatalException(transport::rpc::to_exception(
      make_error(ErrorCode::unimplemented, "a prompt of a kind that this build does not know")));
}

void write(api::GenerateRequest::Builder out, const GenerateRequest& in) {
  write(out.initPrompt(), in.prompt);
  write(out.initSampling(), in.sampling);
  if (in.seed) out.getSeed().setGiven(*in.seed);
  out.setN(in.num_choices);
  out.setPriority(in.priority);
  out.setDeadlineMs(to_deadline_ms(in.deadline));
}

GenerateRequest read(api::GenerateRequest::Reader in) {
  GenerateRequest out;
  out.prompt = read(in.getPrompt());
  out.sampling = read(in.getSampling());
  if (in.getSeed().isGiven()) out.seed = in.getSeed().getGiven();
  out.num_choices = in.getN();
  out.priority = in.getPriority();
  out.deadline = from_deadline_ms(in.getDeadlineMs());
  return out;
}

void write(api::ScoreRequest::Builder out, const ScoreRequest& in) {
  write_ids(out.initPrompt(num(in.prompt)), in.prompt);
  write_ids(out.initTargets(num(in.targets)), in.targets);
  out.setDeadlineMs(to_deadline_ms(in.deadline));
}

ScoreRequest read(api::ScoreRequest::Reader in) {
  return {.prompt = read_ids(in.getPrompt()),
          .targets = read_ids(in.getTargets()),
          .full_path = {},
          .deadline = from_deadline_ms(in.getDeadlineMs())};
}

void write(api::Delta::Builder out, const Delta& in) {
  out.setRequestId(in.request.value);
  out.setChoice(in.choice);
  out.setFirstIndex(in.first_index);
  write_ids(out.initTokens(num(in.tokens)), in.tokens);
  out.setText(text(in.text));
  auto logprobs = out.initLogprobs(num(in.logprobs));
  for (uint32_t i = 0; i < logprobs.size(); ++i) {
    logprobs[i].setLogprob(in.logprobs[i].logprob);
    write_pairs(logprobs[i].initTop(num(in.logprobs[i].top)), in.logprobs[i].top);
  }
  out.setFinish(static_cast<api::FinishReason>(in.finish));
}

Delta read(api::Delta::Reader in) {
  Delta out{.request = RequestId(in.getRequestId()),
            .choice = in.getChoice(),
            .first_index = in.getFirstIndex(),
            .tokens = read_ids(in.getTokens()),
            .text = text(in.getText()),
            .logprobs = {},
            .finish = checked(in.getFinish(), graph::FinishReason::failed)};
  for (const auto logprobs : in.getLogprobs())
    out.logprobs.push_back(
        {.logprob = logprobs.getLogprob(), .top = read_pairs(logprobs.getTop())});
  return out;
}

void write(api::Outcome::Builder out, const Result<Usage>& in) {
  if (!in.ok()) {
    out.setError(text(transport::rpc::to_text(in.error())));
    return;
  }
  auto usage = out.initUsage();
  usage.setPromptTokens(in->num_prompt_tokens);
  auto choices = usage.initChoices(num(in->choices));
  for (uint32_t i = 0; i < choices.size(); ++i) {
    const ChoiceUsage& choice = in->choices[i];
    choices[i].setTokens(choice.num_tokens);
    choices[i].setFinish(static_cast<api::FinishReason>(choice.finish));
    choices[i].setToFirstTokenNs(choice.to_first_token.count());
    choices[i].setFirstToLastNs(choice.first_to_last.count());
  }
}

Result<Usage> read(api::Outcome::Reader in) {
  if (in.isError()) return transport::rpc::from_text(text(in.getError()), ErrorCode::internal);
  const auto usage = in.getUsage();
  Usage out{.num_prompt_tokens = usage.getPromptTokens(), .choices = {}};
  for (const auto choice : usage.getChoices())
    out.choices.push_back({.num_tokens = choice.getTokens(),
                           .finish = checked(choice.getFinish(), graph::FinishReason::failed),
                           .to_first_token = Duration(choice.getToFirstTokenNs()),
                           .first_to_last = Duration(choice.getFirstToLastNs())});
  return out;
}

}  // namespace chainpump::gateway::rpc
