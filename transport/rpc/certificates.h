// The certificates of a cluster: who may be what in it, as its operator has signed. An authority is
// a folder with a certificate and the key that signs others; what it issues for one machine is a
// folder of three files, which is carried there: `ca.pem`, `certificate.pem`, `key.pem`.
//
// A certificate says one thing: which name its holder has, and in which role ("node/b", its common
// name). It says nothing of addresses: machines move, names stay, and every peer compares the name
// and the role that it expects with the certificate that it sees. Keys are Ed25519.
// The only file that includes OpenSSL's headers is certificates.cc. Any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chainpump::transport::rpc {

/// What a process may do with others. There is no role for everything.
enum class Role : uint8_t {
  coordinator,  // takes nodes in, tells agents and ranks what to do, uses lanes: `serve`
  node,         // joins, serves its agent and its ranks to coordinators: `node`
};
std::string_view to_string(Role role);

struct Identity {
  Role role = Role::node;
  std::string name;
  bool operator==(const Identity&) const = default;
};
/// "node/b".
std::string to_string(const Identity& identity);
/// Nothing if it is not of that form.
std::optional<Identity> identity_from(std::string_view common_name);

/// 1 to 40 letters, digits, '-' or '_', as a graph file's names.
bool is_certificate_name(std::string_view name);

/// The name that every certificate carries beside its own: TLS wants one to compare.
inline constexpr const char* kCertificateHost = "chainpump";

/// Makes `folder`, or fills it: `ca.pem` and `ca-key.pem`, which is for its owner's eyes (0600) and
/// signs for ten years. invalid_argument: there is an authority in it; no_room: it cannot be
/// written.
Status make_authority(const std::filesystem::path& folder);

struct IssueOptions {
  Identity identity;
  // In seconds from now. Clocks differ: it begins an hour ago.
  int64_t begins_s = -3600;
  int64_t ends_s = int64_t{365} * 86400;
};
/// Makes `authority`/NAME with the three files, and returns it. not_found, bad_file: no authority;
/// invalid_argument: not a name, or there is such a folder; no_room.
Result<std::filesystem::path> issue(const std::filesystem::path& authority,
                                    const IssueOptions& options);

/// A folder that issue() made, as PEM texts, and what the certificate says.
struct Certified {
  Identity identity;
  std::string authority;
  std::string certificate;
  std::string key;
};
/// not_found: a file is missing; invalid_argument: others may read the key, or the certificate is
/// not valid now, of another authority, or of another key; bad_file: not such files.
Result<Certified> read_certified(const std::filesystem::path& folder);

}  // namespace chainpump::transport::rpc
