// What this process shows its peers on a network, and by whose signature it knows them. Loaded once
// at start from a folder that `chainpump cert issue` made; ranks and agents of one machine share
// it. Immutable; any thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "transport/rpc/certificates.h"

namespace chainpump::transport::rpc {

class Credentials {
 public:
  /// As read_certified().
  static Result<std::shared_ptr<const Credentials>> load(const std::filesystem::path& folder);
  ~Credentials();

  const Identity& identity() const;

  struct Impl;
  explicit Credentials(std::unique_ptr<Impl> impl);
  Impl& impl() const { return *impl_; }  // for transport/rpc only

 private:
  std::unique_ptr<Impl> impl_;
};

/// Whom a caller expects at the other end.
struct Expected {
  Role role = Role::node;
  std::string name;  // empty: any
};

/// Who may connect to a server that listens on a network: nobody, if there are no credentials. (On
/// a Unix socket it is this process's user and root, and nobody else.)
struct Admission {
  std::shared_ptr<const Credentials> credentials = {};
  Role role = Role::coordinator;
  /// Who was turned away and why, in a sentence; once a second at most, on the server's thread.
  std::function<void(const std::string&)> on_refused = {};
};

}  // namespace chainpump::transport::rpc
