// The side of Weights (schemas/weights.capnp) that has files. No header of the RPC library shows.
//
// Thread rule: run() in one thread, where the handler is called and may read from a disk; stop() in
// any.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"

namespace chainpump::transport::rpc {

class WeightsHandler {
 public:
  virtual ~WeightsHandler() = default;
  virtual Result<std::vector<std::byte>> on_manifest(const ModelIdentity& model) = 0;
  virtual std::vector<uint8_t> on_have(const ModelIdentity& model) = 0;
  virtual Result<std::vector<std::byte>> on_read(const ModelIdentity& model, uint32_t piece) = 0;
};

class WeightsServer {
 public:
  explicit WeightsServer(WeightsHandler& handler);
  ~WeightsServer();
  WeightsServer(const WeightsServer&) = delete;
  WeightsServer& operator=(const WeightsServer&) = delete;

  /// Serves until stop(); or returns why it cannot.
  Status run(UniqueFd listener, const Admission& admission);
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::transport::rpc
