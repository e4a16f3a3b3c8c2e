#include "actors/weights_source.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "actors/convert.h"
#include "base/file_io.h"
#include "base/mapped_file.h"
#include "base/thread.h"
#include "models/weights/model_files.h"
#include "models/weights/weight_store.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/service_file.h"
#include "transport/rpc/weights_server.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

constexpr size_t kOpenMax = 4;  // files

/// A file that somebody asks for: whole, or as far as it was fetched.
struct OpenFile {
  graph::ModelIdentity model;
  UniqueFd whole;                           // or
  std::optional<models::WeightStore> part;  // this
  std::vector<models::WeightPiece> pieces = {};
};

Result<std::vector<models::WeightPiece>> pieces_of(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(path));
  ASSIGN_OR_RETURN(const models::GgufFile file,
                   models::GgufFile::parse(mapped.bytes(), path.string()));
  return models::WeightTable(mapped.bytes(), file).pieces();
}

}  // namespace

struct WeightsSource::Impl final : rpc::WeightsHandler {
  Result<std::vector<std::byte>> on_manifest(const rpc::ModelIdentity& wanted) override {
    const graph::ModelIdentity model = from_wire(wanted);
    {
      const std::lock_guard lock(mutex);
      if (!manifest.empty() && given == model) return manifest;
    }
    const Result<models::WeightStore> store = models::WeightStore::find(places.store, model);
    if (store.ok())
      if (std::optional<std::vector<std::byte>> kept = store->manifest()) return *std::move(kept);
    return make_error(ErrorCode::not_found, "its manifest is not here");
  }

  std::vector<uint8_t> on_have(const rpc::ModelIdentity& wanted) override {
    const Result<OpenFile*> file = open(from_wire(wanted), true);
    std::vector<uint8_t> has;
    if (!file.ok()) return has;
    const OpenFile& there = **file;
    has.resize((there.pieces.size() + 7) / 8);
    for (uint32_t i = 0; i < there.pieces.size(); ++i)
      if (there.whole.valid() || there.part->has(i)) has[i / 8] |= static_cast<uint8_t>(1 << i % 8);
    return has;
  }

  Result<std::vector<std::byte>> on_read(const rpc::ModelIdentity& wanted,
                                         uint32_t index) override {
    ASSIGN_OR_RETURN(const OpenFile* file, open(from_wire(wanted), false));
    const bool is_there =
        index < file->pieces.size() && (file->whole.valid() || file->part->has(index));
    if (!is_there) return make_error(ErrorCode::not_found, "piece {} is not here", index);
    const models::WeightPiece& piece = file->pieces[index];
    std::vector<std::byte> bytes(piece.bytes);
    if (file->part) RETURN_IF_ERROR(file->part->read(piece, bytes));
    if (file->whole.valid() && !read_whole(file->whole.get(), bytes, piece.offset))
      return make_error(ErrorCode::bad_file, "piece {} cannot be read: {}", index,
                        std::strerror(errno));
    return bytes;
  }

  /// `anew`: it may have come, or gone, since it was opened.
  Result<OpenFile*> open(const graph::ModelIdentity& model, bool anew) {
    for (auto i = files.begin(); i != files.end(); ++i) {
      if (i->model != model) continue;
      if (!anew) return &*i;
      files.erase(i);
      break;
    }
    OpenFile file{.model = model, .whole = {}, .part = {}};
    std::filesystem::path at;
    if (const auto whole = models::find_model(model, files_given(), places.models)) {
      at = *whole;
      file.whole.reset(::open(at.c_str(), O_RDONLY | O_CLOEXEC));
      if (!file.whole.valid())
        return make_error(ErrorCode::not_found, "{}: {}", at.string(), std::strerror(errno));
    } else {
      ASSIGN_OR_RETURN(file.part, models::WeightStore::find(places.store, model));
      if (!file.part->has_head())
        return make_error(ErrorCode::not_found, "its head is not here yet");
      at = file.part->path();
    }
    ASSIGN_OR_RETURN(file.pieces, pieces_of(at));
    if (files.size() == kOpenMax) files.pop_back();
    files.push_front(std::move(file));
    return &files.front();
  }

  std::vector<std::filesystem::path> files_given() {
    const std::lock_guard lock(mutex);
    if (path.empty()) return {};
    return {path};
  }

  WeightPlaces places;
  std::string address;
  std::mutex mutex;
  std::filesystem::path path;  // that was given
  graph::ModelIdentity given;
  std::vector<std::byte> manifest;
  std::deque<OpenFile> files;  // the server's thread
  rpc::WeightsServer server{*this};
  std::thread thread;
};

WeightsSource::WeightsSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

WeightsSource::~WeightsSource() {
  impl_->server.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

Result<std::unique_ptr<WeightsSource>> WeightsSource::start(
    UniqueFd listener, std::shared_ptr<const rpc::Credentials> credentials, WeightPlaces places) {
  auto impl = std::make_unique<Impl>();
  impl->places = std::move(places);
  impl->address = rpc::own_address(listener);
  const auto tell = [](const std::string& what) {
    std::fprintf(stderr, "chainpump: weights: %s\n", what.c_str());
  };
  const rpc::Admission admission{std::move(credentials), rpc::Role::node, tell};
  ASSIGN_OR_RETURN(impl->thread,
                   start_thread("the thread that serves weights",
                                [raw = impl.get(), fd = listener.release(), admission, tell] {
                                  const Status served = raw->server.run(UniqueFd(fd), admission);
                                  if (!served.ok()) tell(served.error().message);
                                }));
  return std::unique_ptr<WeightsSource>(new WeightsSource(std::move(impl)));
}

const std::string& WeightsSource::address() const { return impl_->address; }

void WeightsSource::set_model(std::filesystem::path path, const graph::ModelIdentity& model,
                              std::vector<std::byte> manifest) {
  const std::lock_guard lock(impl_->mutex);
  impl_->path = std::move(path);
  impl_->given = model;
  impl_->manifest = std::move(manifest);
}

std::vector<rpc::WeightSource> weight_sources(const std::string& nodes_file,
                                              const rpc::WeightSource& serve) {
  std::vector<rpc::WeightSource> sources;
  if (!serve.address.empty()) sources.push_back(serve);
  const Result<std::vector<rpc::NodeInfo>> joined = rpc::read_nodes_file(nodes_file);
  if (!joined.ok()) return sources;
  for (const rpc::NodeInfo& node : *joined)
    sources.push_back({.name = node.name, .address = node.weights});
  return sources;
}

}  // namespace chainpump::actors
