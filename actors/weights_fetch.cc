#include "actors/weights_fetch.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "actors/convert.h"
#include "actors/weight_sessions.h"
#include "base/mapped_file.h"
#include "models/fingerprint.h"
#include "models/weights/model_files.h"
#include "models/weights/weight_store.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;
using graph::WeightFetch;

constexpr int64_t kSyncEveryBytes = int64_t{8} << 20;
constexpr Duration kNoticeEvery = std::chrono::seconds(2);

class Fetch {
 public:
  Fetch(const WeightsFetchTerms& terms, models::WeightStore store, WeightSessions& sessions)
      : terms_(terms), store_(std::move(store)), sessions_(sessions) {}

  Result<FetchedWeights> run() {
    ASSIGN_OR_RETURN(const std::vector<std::byte> encoded, find_manifest());
    ASSIGN_OR_RETURN(manifest_, models::decode_manifest(encoded));
    pieces_ = models::head_pieces(manifest_.head_bytes);
    std::vector<uint32_t> head(pieces_.size());
    for (uint32_t i = 0; i < head.size(); ++i) head[i] = i;
    RETURN_IF_ERROR(fetch(head, {}));
    ASSIGN_OR_RETURN(const std::vector<uint32_t> share, read_head());
    RETURN_IF_ERROR(fetch(share, terms_.progress));
    FetchedWeights fetched{store_.path()};
    for (const uint32_t piece : share)
      fetched.share_bytes += static_cast<int64_t>(pieces_[piece].bytes);
    return fetched;
  }

 private:
  Error named(const Error& error) const {
    return make_error(error.code, "weights cannot be fetched: {}", error.message);
  }

  // -------------------------------------------------------------------------- what there is to be
  Result<std::vector<std::byte>> find_manifest() {
    if (std::optional<std::vector<std::byte>> kept = store_.manifest()) return *std::move(kept);
    if (terms_.sources.empty())
      return named(make_error(ErrorCode::not_found, "no node is known to have them"));
    const TimePoint deadline = steady_clock().now() + terms_.limits.silence_max;
    std::string why;
    for (size_t i = 0; steady_clock().now() < deadline; i = (i + 1) % terms_.sources.size()) {
      if (i == 0 && !why.empty()) sessions_.wait(steady_clock().now() + terms_.limits.rest);
      sessions_.ask_manifest(i);
      std::optional<WeightSessions::Answer> answer = sessions_.wait(deadline);
      if (!answer) break;
      Result<std::vector<std::byte>>& bytes = answer->bytes;
      if (bytes.ok() && is_ours(*bytes)) {
        if (const Status kept = store_.keep_manifest(*bytes);
            !kept.ok() && kept.error().code != ErrorCode::overloaded)  // another rank writes it
          return named(kept.error());
        return std::move(*bytes);
      }
      const std::string wrong = "sent another manifest";
      why = terms_.sources[i].name + " " + (bytes.ok() ? wrong : bytes.error().message);
      if (!bytes.ok()) sessions_.drop(i);
    }
    return named(make_error(ErrorCode::deadline_exceeded, "nobody has said what they are: {}",
                            why.empty() ? "no answer" : why));
  }

  bool is_ours(std::span<const std::byte> encoded) const {
    const Result<models::Manifest> manifest = models::decode_manifest(encoded);
    return manifest.ok() && identity_of(*manifest) == terms_.model;
  }

  /// With the head there: where all pieces lie, and which are this stage's.
  Result<std::vector<uint32_t>> read_head() {
    ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(store_.path()));
    ASSIGN_OR_RETURN(const models::GgufFile file,
                     models::GgufFile::parse(mapped.bytes(), store_.path().string()));
    const models::WeightTable table(mapped.bytes(), file);
    if (table.head_bytes() != manifest_.head_bytes ||
        table.pieces().size() != manifest_.hashes.size())
      return named(make_error(ErrorCode::bad_file, "the file's head and its manifest disagree"));
    RETURN_IF_ERROR(put_samples(mapped, file));
    pieces_ = table.pieces();
    return table.share(models::stage_tensors(file, terms_.stage));
  }

  /// By which the file is known, though its tensors may be of other stages.
  Status put_samples(const MappedFile& mapped, const models::GgufFile& file) {
    std::span<const std::byte> said = manifest_.samples;
    for (const std::span<const std::byte> sample : models::fingerprint_samples(file)) {
      if (said.size() < sample.size())
        return named(make_error(ErrorCode::bad_file, "the manifest has too few samples"));
      const std::span<const std::byte> own = said.first(sample.size());
      said = said.subspan(sample.size());
      if (std::equal(own.begin(), own.end(), sample.begin())) continue;
      const auto offset = static_cast<uint64_t>(sample.data() - mapped.bytes().data());
      RETURN_IF_ERROR(store_.write_at(offset, own));
    }
    return store_.sync();
  }

  // ----------------------------------------------------------------------------------- the pieces
  Status fetch(const std::vector<uint32_t>& share,
               const std::function<void(int64_t, int64_t)>& progress) {
    std::vector<uint32_t> missing;
    int64_t missing_bytes = 0;
    done_bytes_ = total_bytes_ = 0;
    for (const uint32_t piece : share) {
      const auto bytes = static_cast<int64_t>(pieces_[piece].bytes);
      total_bytes_ += bytes;
      if (store_.has(piece)) {
        done_bytes_ += bytes;
        continue;
      }
      missing.push_back(piece);
      missing_bytes += bytes;
    }
    if (progress) progress(done_bytes_, total_bytes_);
    if (missing.empty()) return ok_status();
    RETURN_IF_ERROR(store_.reserve(static_cast<uint64_t>(missing_bytes)));
    const TimePoint began = steady_clock().now();
    noticed_ = began;
    const Status done = fetch_missing(missing, progress, began, done_bytes_);
    const Status kept = store_.sync();  // also of one that goes no further
    if (!done.ok()) return named(done.error());
    if (!kept.ok()) return named(kept.error());
    if (progress)
      notice(fmt::format("{:.1f} MB of weights were fetched in {:.1f} s",
                         static_cast<double>(missing_bytes) * 1e-6,
                         to_seconds(steady_clock().now() - began)));
    return ok_status();
  }

  Status fetch_missing(const std::vector<uint32_t>& missing,
                       const std::function<void(int64_t, int64_t)>& progress, TimePoint began,
                       int64_t before) {
    std::vector<std::string> names;
    for (const rpc::WeightSource& source : terms_.sources) names.push_back(source.name);
    WeightFetch core(missing, static_cast<uint32_t>(manifest_.hashes.size()), names, terms_.limits,
                     began);
    while (!core.done()) {
      const TimePoint now = steady_clock().now();
      if (const std::optional<Error> failure = core.failure(now)) return *failure;
      for (const WeightFetch::Ask& ask : core.next(now)) sessions_.ask(ask);
      std::optional<WeightSessions::Answer> answer = sessions_.wait(core.next_deadline());
      if (!answer) continue;
      RETURN_IF_ERROR(take(core, *answer));
      if (progress) progress(done_bytes_, total_bytes_);
      if (progress) say_how_far(began, before);
    }
    return ok_status();
  }

  Status take(WeightFetch& core, const WeightSessions::Answer& answer) {
    const TimePoint now = steady_clock().now();
    const WeightFetch::Ask& ask = answer.ask;
    if (!answer.bytes.ok()) {
      sessions_.drop(ask.source);
      if (ask.piece)
        core.on_piece(ask, WeightFetch::Came::lost, answer.bytes.error().message, now);
      else
        core.on_lost(ask.source, answer.bytes.error().message, now);
      return ok_status();
    }
    const std::vector<std::byte>& bytes = *answer.bytes;
    if (!ask.piece) {
      const auto* begin = reinterpret_cast<const uint8_t*>(bytes.data());
      core.on_has(ask.source, std::vector<uint8_t>(begin, begin + bytes.size()));
      return ok_status();
    }
    const models::WeightPiece& piece = pieces_[*ask.piece];
    if (bytes.size() != piece.bytes || models::hash_of(bytes) != manifest_.hashes[*ask.piece]) {
      const std::string why = fmt::format("sent a damaged piece, {}", *ask.piece);
      notice(fmt::format("{} {}: it is asked for again", terms_.sources[ask.source].name, why));
      core.on_piece(ask, WeightFetch::Came::wrong, why, now);
      return ok_status();
    }
    RETURN_IF_ERROR(store_.write(*ask.piece, piece, bytes));
    core.on_piece(ask, WeightFetch::Came::right, {}, now);
    done_bytes_ += static_cast<int64_t>(bytes.size());
    unsynced_bytes_ += static_cast<int64_t>(bytes.size());
    if (unsynced_bytes_ < kSyncEveryBytes) return ok_status();
    unsynced_bytes_ = 0;
    return store_.sync();
  }

  void say_how_far(TimePoint began, int64_t before) {
    const TimePoint now = steady_clock().now();
    if (now - noticed_ < kNoticeEvery) return;
    noticed_ = now;
    const double rate = static_cast<double>(done_bytes_ - before) / to_seconds(now - began);
    notice(fmt::format("fetching weights: {:.1f} of {:.1f} MB, {:.1f} MB/s, {:.0f} s left",
                       static_cast<double>(done_bytes_) * 1e-6,
                       static_cast<double>(total_bytes_) * 1e-6, rate * 1e-6,
                       rate > 0 ? static_cast<double>(total_bytes_ - done_bytes_) / rate : 0.0));
  }

  void notice(const std::string& what) const {
    if (terms_.notice) terms_.notice(what);
  }

  const WeightsFetchTerms& terms_;
  models::WeightStore store_;
  WeightSessions& sessions_;
  models::Manifest manifest_;
  std::vector<models::WeightPiece> pieces_;  // as far as they are known
  int64_t done_bytes_ = 0;
  int64_t total_bytes_ = 0;
  int64_t unsynced_bytes_ = 0;
  TimePoint noticed_;
};

}  // namespace

Result<FetchedWeights> fetch_weights(const WeightsFetchTerms& terms) {
  if (terms.store.empty())
    return make_error(ErrorCode::not_found,
                      "weights cannot be fetched: there is no folder for them (HOME or "
                      "XDG_CACHE_HOME says which)");
  ASSIGN_OR_RETURN(models::WeightStore store,
                   models::WeightStore::open({.folder = terms.store}, terms.model));
  ASSIGN_OR_RETURN(const auto sessions,
                   WeightSessions::create(to_wire(terms.model), terms.sources, terms.credentials));
  return Fetch(terms, std::move(store), *sessions).run();
}

}  // namespace chainpump::actors
