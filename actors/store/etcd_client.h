// What is used of etcd (3.4 or later): keys with revisions, transactions that compare them, and
// leases, over its JSON gateway. Every answer is checked; names of fields are etcd's own.
//
// Every change of a key gives the whole store a new revision, which never goes back. A key's
// create_revision is that since which it has been there without a gap, 0 if it is not.
//
// A call that fails may have been carried out all the same, and even later: a transaction compares
// what it changes, so that it cannot be carried out twice. One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/store/http_poster.h"
#include "base/clock.h"
#include "base/result.h"

namespace chainpump::actors {

/// `etcd://HOST:PORT[,HOST:PORT...]/PREFIX`
struct EtcdAddress {
  std::vector<std::string> servers;
  std::string prefix;  // "/" and what follows, without one at its end
};

/// invalid_argument says what an address is like.
Result<EtcdAddress> parse_etcd_address(const std::string& text);
/// invalid_argument: a server beyond the loopback without TLS, or half a certificate.
Status check(const HttpServers& servers);

struct EtcdValue {
  std::string text;
  int64_t create_revision = 0;  // 0: the key is not there
  int64_t mod_revision = 0;
  int64_t lease = 0;
};

struct EtcdCompare {
  enum class What : uint8_t { create_revision, mod_revision };
  std::string key;
  What what;
  int64_t equals = 0;
};

/// Puts `value`, or deletes the key where there is none.
struct EtcdChange {
  std::string key;
  std::optional<std::string> value;
  int64_t lease = 0;
};

struct EtcdTransaction {
  std::vector<EtcdCompare> compare;
  std::vector<EtcdChange> change;  // if all compare
  std::vector<std::string> look;   // if they do not
};

struct EtcdOutcome {
  bool succeeded = false;
  int64_t revision = 0;           // of the store: of the keys that were changed
  std::vector<EtcdValue> looked;  // if it has not: as `look`
};

struct EtcdLease {
  int64_t id = 0;
  Duration ttl{0};
};

class EtcdClient {
 public:
  static Result<std::unique_ptr<EtcdClient>> create(HttpServers servers);

  // Errors of all: disconnected, deadline_exceeded: nobody has answered; not_found: no such lease;
  // bad_file: what came is no answer; internal: etcd refuses, and says why.
  Result<EtcdValue> get(const std::string& key, TimePoint deadline);
  /// Of every key that begins so, in order.
  Result<std::map<std::string, EtcdValue>> list(const std::string& begins, TimePoint deadline);
  Result<EtcdOutcome> transact(const EtcdTransaction& what, TimePoint deadline);
  Result<EtcdLease> grant(Duration ttl, TimePoint deadline);
  /// From now on it lasts so long again; 0: it has run out.
  Result<Duration> renew(int64_t lease, TimePoint deadline);
  Status revoke(int64_t lease, TimePoint deadline);

 private:
  explicit EtcdClient(std::unique_ptr<HttpPoster> http) : http_(std::move(http)) {}
  Result<std::string> call(const char* path, const std::string& body, TimePoint deadline);

  std::unique_ptr<HttpPoster> http_;
};

}  // namespace chainpump::actors
