#include "graph/weight_fetch.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {

WeightFetch::WeightFetch(const std::vector<uint32_t>& wanted, uint32_t num_pieces,
                         std::vector<std::string> sources, const WeightFetchLimits& limits,
                         TimePoint now)
    : limits_(limits),
      wanted_(wanted),
      pieces_(num_pieces, Piece::unwanted),
      tries_(num_pieces, 0),
      num_missing_(wanted.size()),
      last_right_(now) {
  for (const uint32_t piece : wanted) {
    CHECK(piece < num_pieces && pieces_[piece] == Piece::unwanted);
    pieces_[piece] = Piece::missing;
  }
  for (std::string& name : sources) sources_.push_back({.name = std::move(name), .until = now});
}

std::optional<uint32_t> WeightFetch::pick(const Source& source) const {
  for (size_t i = first_missing_; i < wanted_.size(); ++i)
    if (pieces_[wanted_[i]] == Piece::missing && source.has_piece(wanted_[i])) return wanted_[i];
  return std::nullopt;
}

/// Now, or if what others are asked for does not come.
bool WeightFetch::may_help(const Source& source) const {
  return std::any_of(
      wanted_.begin() + static_cast<ptrdiff_t>(first_missing_), wanted_.end(),
      [&](uint32_t piece) { return pieces_[piece] != Piece::there && source.has_piece(piece); });
}

void WeightFetch::rest(Source& source, const std::string& why, TimePoint now) const {
  source.why = why;
  if (source.state == State::refused) return;
  source.state = State::resting;
  source.until = now + limits_.rest;
}

std::vector<WeightFetch::Ask> WeightFetch::next(TimePoint now) {
  std::vector<Ask> asks;
  if (done() || failure(now)) return asks;
  while (first_missing_ < wanted_.size() && pieces_[wanted_[first_missing_]] == Piece::there)
    ++first_missing_;
  for (size_t i = 0; i < sources_.size(); ++i) {
    Source& source = sources_[i];
    if (source.state != State::resting || now < source.until || source.in_flight > 0) continue;
    source.state = State::asked;
    asks.push_back({i});
  }
  // In turns, so that all are busy to the end.
  for (int32_t round = 0; round < limits_.in_flight_max; ++round)
    for (size_t i = 0; i < sources_.size(); ++i) {
      Source& source = sources_[i];
      if (source.state != State::ready || source.in_flight > round) continue;
      const std::optional<uint32_t> piece = pick(source);
      if (!piece) {
        if (!may_help(source)) rest(source, "has nothing that is wanted", now);
        continue;
      }
      pieces_[*piece] = Piece::in_flight;
      ++source.in_flight;
      asks.push_back({i, *piece});
    }
  return asks;
}

void WeightFetch::on_has(size_t source, std::vector<uint8_t> has) {
  if (sources_[source].state != State::asked) return;
  sources_[source].state = State::ready;
  sources_[source].has = std::move(has);
}

void WeightFetch::on_lost(size_t source, const std::string& why, TimePoint now) {
  rest(sources_[source], why, now);
}

void WeightFetch::on_piece(const Ask& ask, Came came, const std::string& why, TimePoint now) {
  Source& source = sources_[ask.source];
  --source.in_flight;
  Piece& piece = pieces_[*ask.piece];
  CHECK(piece == Piece::in_flight);
  switch (came) {
    case Came::right:
      piece = Piece::there;
      --num_missing_;
      last_right_ = now;
      return;
    case Came::wrong:
      piece = Piece::missing;
      source.why = why;
      if (++source.wrong >= limits_.wrong_max) source.state = State::refused;
      if (++tries_[*ask.piece] >= limits_.tries_max) hopeless_ = ask.piece;
      return;
    case Came::lost:
      piece = Piece::missing;
      return rest(source, why, now);
  }
}

std::string WeightFetch::sources_text() const {
  std::vector<std::string> all;
  for (const Source& source : sources_) all.push_back(source.name + " " + source.why);
  return fmt::format("{}", fmt::join(all, "; "));
}

std::optional<Error> WeightFetch::failure(TimePoint now) const {
  if (done()) return std::nullopt;
  if (sources_.empty()) return make_error(ErrorCode::not_found, "no node is known to have them");
  if (hopeless_)
    return make_error(ErrorCode::bad_file, "piece {} came wrong {} times: {}", *hopeless_,
                      limits_.tries_max, sources_text());
  if (std::all_of(sources_.begin(), sources_.end(),
                  [](const Source& source) { return source.state == State::refused; }))
    return make_error(ErrorCode::bad_file, "nobody has them undamaged: {}", sources_text());
  if (now - last_right_ < limits_.silence_max) return std::nullopt;
  return make_error(ErrorCode::deadline_exceeded, "nothing has come for {:.0f} s: {}",
                    to_seconds(limits_.silence_max), sources_text());
}

TimePoint WeightFetch::next_deadline() const {
  TimePoint next = last_right_ + limits_.silence_max;
  for (const Source& source : sources_)
    if (source.state == State::resting && source.in_flight == 0)
      next = std::min(next, source.until);
  return next;
}

}  // namespace chainpump::graph
