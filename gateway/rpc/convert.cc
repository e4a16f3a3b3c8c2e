#include "gateway/rpc/convert.h"

#include <string>
#include <utility>

namespace chainpump::gateway::rpc {

using transport::rpc::read_pairs;
using transport::rpc::read_sampling;
using transport::rpc::write_pairs;
using transport::rpc::write_sampling;

namespace {

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
    write_ints(out.initIds(num(ids)), ids);
  }
}

Prompt read(api::Prompt::Reader in) {
  switch (in.which()) {
    case api::Prompt::TEXT:
      return RawText{text(in.getText())};
    case api::Prompt::CHAT: {
      Chat chat;
      for (const auto message : checked_list(in.getChat()))
        chat.messages.push_back({.role = text(message.getRole()),
                                 .content = text(message.getContent()),
                                 .extra_json = text(message.getExtraJson())});
      return chat;
    }
    case api::Prompt::IDS:
      return read_ints(in.getIds());
  }
  kj::throwFatalException(transport::rpc::to_exception(
      make_error(ErrorCode::unimplemented, "a prompt of a kind that this build does not know")));
}

void write(api::GenerateRequest::Builder out, const GenerateRequest& in) {
  write(out.initPrompt(), in.prompt);
  write_sampling(out.initSampling(), in.sampling);
  if (in.seed) out.getSeed().setGiven(*in.seed);
  out.setN(in.num_choices);
  out.setPriority(in.priority);
  out.setTenant(text(in.tenant));
  out.setDeadlineMs(to_deadline_ms(in.deadline));
  auto so_far = out.initSoFar(num(in.so_far));
  for (uint32_t i = 0; i < so_far.size(); ++i) {
    write_ints(so_far[i].initTokens(num(in.so_far[i].tokens)), in.so_far[i].tokens);
    so_far[i].setFinish(static_cast<api::FinishReason>(in.so_far[i].finish));
  }
}

GenerateRequest read(api::GenerateRequest::Reader in) {
  GenerateRequest out;
  out.prompt = read(in.getPrompt());
  out.sampling = read_sampling<graph::SamplingParams>(in.getSampling());
  if (in.getSeed().isGiven()) out.seed = in.getSeed().getGiven();
  out.num_choices = in.getN();
  out.priority = in.getPriority();
  out.tenant = text(in.getTenant());
  out.deadline = from_deadline_ms(in.getDeadlineMs());
  for (const auto choice : in.getSoFar())
    out.so_far.push_back({.tokens = read_ints(choice.getTokens()),
                          .finish = checked(choice.getFinish(), graph::FinishReason::failed)});
  return out;
}

void write(api::ScoreRequest::Builder out, const ScoreRequest& in) {
  write_ints(out.initPrompt(num(in.prompt)), in.prompt);
  write_ints(out.initTargets(num(in.targets)), in.targets);
  out.setDeadlineMs(to_deadline_ms(in.deadline));
}

ScoreRequest read(api::ScoreRequest::Reader in) {
  return {.prompt = read_ints(in.getPrompt()),
          .targets = read_ints(in.getTargets()),
          .full_path = {},
          .deadline = from_deadline_ms(in.getDeadlineMs())};
}

void write(api::Delta::Builder out, const Delta& in) {
  out.setRequestId(in.request.value);
  out.setChoice(in.choice);
  out.setFirstIndex(in.first_index);
  write_ints(out.initTokens(num(in.tokens)), in.tokens);
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
            .tokens = read_ints(in.getTokens()),
            .text = text(in.getText()),
            .logprobs = {},
            .finish = checked(in.getFinish(), graph::FinishReason::failed)};
  for (const auto logprobs : checked_list(in.getLogprobs()))
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
  for (const auto choice : checked_list(usage.getChoices()))
    out.choices.push_back({.num_tokens = choice.getTokens(),
                           .finish = checked(choice.getFinish(), graph::FinishReason::failed),
                           .to_first_token = Duration(choice.getToFirstTokenNs()),
                           .first_to_last = Duration(choice.getFirstToLastNs())});
  return out;
}

}  // namespace chainpump::gateway::rpc
