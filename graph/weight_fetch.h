// Whom to ask for which piece of a weights file, when several nodes may have it: a pure core. Each
// source is asked first what it has, then for pieces, a few at a time, in order; each piece that
// comes is checked by whoever runs this.
//
//   what comes     the piece                       its source
//   right          is there                        is asked on
//   wrong          is wanted again; after          after wrong_max of them is asked no more: its
//                  tries_max of them: bad_file     file is another, or damaged
//   lost           is wanted again                 rests, then is asked again what it has
//
// A source that has nothing that is wanted rests, too: it may fetch itself, or come back with the
// file. When for silence_max nothing right has come, the fetch fails.
// Pure; one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::graph {

struct WeightFetchLimits {
  int32_t in_flight_max = 4;  // of each source
  int32_t tries_max = 8;      // of a piece that came and was wrong
  int32_t wrong_max = 3;      // pieces of a source
  Duration silence_max = std::chrono::seconds(20);
  Duration rest = std::chrono::milliseconds(500);
};

class WeightFetch {
 public:
  struct Ask {
    size_t source = 0;
    std::optional<uint32_t> piece = {};  // nothing: what it has
    bool operator==(const Ask&) const = default;
  };
  enum class Came : uint8_t { right, wrong, lost };

  /// `wanted`: of a file of `num_pieces`, in order, each once. `sources`: their names.
  WeightFetch(const std::vector<uint32_t>& wanted, uint32_t num_pieces,
              std::vector<std::string> sources, const WeightFetchLimits& limits, TimePoint now);

  /// What is to be asked now; each is answered by on_has() or on_piece().
  std::vector<Ask> next(TimePoint now);
  /// `has`: a bit for each piece, the lowest of a byte first; those beyond its end it has not.
  void on_has(size_t source, std::vector<uint8_t> has);
  /// It could not say.
  void on_lost(size_t source, const std::string& why, TimePoint now);
  void on_piece(const Ask& ask, Came came, const std::string& why, TimePoint now);

  bool done() const { return num_missing_ == 0; }
  /// Why it will not be done. bad_file, deadline_exceeded, not_found: there are no sources.
  std::optional<Error> failure(TimePoint now) const;
  /// When to call next() and failure() again, if nothing comes.
  TimePoint next_deadline() const;

 private:
  enum class State : uint8_t { resting, asked, ready, refused };
  enum class Piece : uint8_t { unwanted, missing, in_flight, there };
  struct Source {
    std::string name;
    State state = State::resting;
    TimePoint until = {};  // of a rest
    std::vector<uint8_t> has = {};
    int32_t in_flight = 0;
    int32_t wrong = 0;
    std::string why = "has not answered";
    bool has_piece(uint32_t piece) const {
      return piece / 8 < has.size() && (has[piece / 8] >> piece % 8 & 1) != 0;
    }
  };
  std::optional<uint32_t> pick(const Source& source) const;
  bool may_help(const Source& source) const;
  void rest(Source& source, const std::string& why, TimePoint now) const;
  std::string sources_text() const;

  const WeightFetchLimits limits_;
  const std::vector<uint32_t> wanted_;
  std::vector<Piece> pieces_;
  std::vector<int32_t> tries_;
  std::vector<Source> sources_;
  size_t num_missing_;
  size_t first_missing_ = 0;  // before it in wanted_ all are there
  TimePoint last_right_;
  std::optional<uint32_t> hopeless_;  // a piece that was wrong too often
};

}  // namespace chainpump::graph
