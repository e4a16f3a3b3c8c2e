#include "actors/store/etcd_client.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>

#include "actors/store/base64.h"

namespace chainpump::actors {
namespace {

using Json = nlohmann::json;

constexpr size_t kServersMax = 16;
constexpr size_t kPrefixMax = 200;
constexpr int kNoSuchLease = 5;  // gRPC's NOT_FOUND, which etcd says of nothing else here

Error no_answer(const char* what) {
  return make_error(ErrorCode::bad_file, "the store's answer makes no sense: {}", what);
}

/// A 64-bit number is text; one that is 0 is left out.
Result<int64_t> number(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return int64_t{0};
  if (!found->is_string()) return no_answer(name);
  const auto& text = found->get_ref<const std::string&>();
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return no_answer(name);
  return value;
}

Result<std::string> bytes(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return std::string();
  if (!found->is_string()) return no_answer(name);
  auto decoded = from_base64(found->get_ref<const std::string&>());
  if (!decoded) return no_answer(name);
  return *std::move(decoded);
}

Result<Json> parse(const std::string& text) {
  Json answer = Json::parse(text, nullptr, false);
  if (!answer.is_object()) return no_answer("it is no object");
  return answer;
}

/// The object of that name.
Result<Json> member(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_object()) return no_answer(name);
  return *found;
}

Result<std::map<std::string, EtcdValue>> read_values(const Json& range) {
  std::map<std::string, EtcdValue> values;
  const auto kvs = range.find("kvs");
  if (kvs == range.end()) return values;
  if (!kvs->is_array()) return no_answer("kvs");
  for (const Json& kv : *kvs) {
    if (!kv.is_object()) return no_answer("kvs");
    EtcdValue value;
    ASSIGN_OR_RETURN(std::string key, bytes(kv, "key"));
    ASSIGN_OR_RETURN(value.text, bytes(kv, "value"));
    ASSIGN_OR_RETURN(value.create_revision, number(kv, "create_revision"));
    ASSIGN_OR_RETURN(value.mod_revision, number(kv, "mod_revision"));
    ASSIGN_OR_RETURN(value.lease, number(kv, "lease"));
    if (key.empty() || value.create_revision == 0 || value.mod_revision < value.create_revision)
      return no_answer("a key's revisions");
    values[std::move(key)] = std::move(value);
  }
  if (range.contains("more")) return no_answer("it is not whole");
  return values;
}

Json range_of(const std::string& key) { return {{"key", to_base64(key)}}; }

Json to_json(const EtcdCompare& compare) {
  const bool created = compare.what == EtcdCompare::What::create_revision;
  return {{"key", to_base64(compare.key)},
          {"result", "EQUAL"},
          {"target", created ? "CREATE" : "MOD"},
          {created ? "create_revision" : "mod_revision", std::to_string(compare.equals)}};
}

Json to_json(const EtcdChange& change) {
  if (!change.value) return {{"request_delete_range", range_of(change.key)}};
  return {{"request_put",
           {{"key", to_base64(change.key)},
            {"value", to_base64(*change.value)},
            {"lease", std::to_string(change.lease)}}}};
}

bool is_server(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  const std::string host = text.substr(0, colon), port = text.substr(colon + 1);
  const auto is_host = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) ||
           std::string_view(".-:[]").find(c) != std::string_view::npos;
  };
  int number_of_port = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number_of_port);
  return std::all_of(host.begin(), host.end(), is_host) && error == std::errc() &&
         end == port.data() + port.size() && number_of_port > 0 && number_of_port < 65536;
}

bool is_loopback(const std::string& server) {
  const std::string host = server.substr(0, server.rfind(':'));
  return host == "[::1]" || host == "localhost" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos);
}

}  // namespace

Result<EtcdAddress> parse_etcd_address(const std::string& text) {
  const auto wrong = [&] {
    return make_error(
        ErrorCode::invalid_argument,
        "--store {}: a store is etcd://HOST:PORT[,HOST:PORT...]/PREFIX, the prefix of "
        "letters, digits, '-', '_', '.' and '/'",
        text);
  };
  constexpr std::string_view kScheme = "etcd://";
  if (!text.starts_with(kScheme)) return wrong();
  const size_t slash = text.find('/', kScheme.size());
  if (slash == std::string::npos) return wrong();
  EtcdAddress address{.servers = {}, .prefix = text.substr(slash)};
  const std::string servers = text.substr(kScheme.size(), slash - kScheme.size()) + ",";
  for (size_t from = 0, comma; (comma = servers.find(',', from)) != std::string::npos;
       from = comma + 1)
    address.servers.push_back(servers.substr(from, comma - from));
  if (address.servers.size() > kServersMax ||
      !std::all_of(address.servers.begin(), address.servers.end(), is_server))
    return wrong();
  const auto is_prefix = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) ||
           std::string_view("-_./").find(c) != std::string_view::npos;
  };
  if (address.prefix.size() < 2 || address.prefix.size() > kPrefixMax ||
      address.prefix.ends_with('/') || address.prefix.find("//") != std::string::npos ||
      !std::all_of(address.prefix.begin(), address.prefix.end(), is_prefix))
    return wrong();
  return address;
}

Status check(const HttpServers& servers) {
  if (servers.certificate.empty() != servers.key.empty() ||
      (!servers.certificate.empty() && servers.authority.empty()))
    return make_error(ErrorCode::invalid_argument,
                      "--store-cert and --store-key go together, and with --store-ca");
  if (!servers.authority.empty()) return ok_status();
  for (const std::string& server : servers.addresses)
    if (!is_loopback(server))
      return make_error(ErrorCode::invalid_argument,
                        "--store: {} is not on this machine: it needs TLS (--store-ca, and "
                        "--store-cert with --store-key)",
                        server);
  return ok_status();
}

Result<std::unique_ptr<EtcdClient>> EtcdClient::create(HttpServers servers) {
  ASSIGN_OR_RETURN(auto http, HttpPoster::create(std::move(servers)));
  return std::unique_ptr<EtcdClient>(new EtcdClient(std::move(http)));
}

Result<std::string> EtcdClient::call(const char* path, const std::string& body,
                                     TimePoint deadline) {
  ASSIGN_OR_RETURN(HttpAnswer answer, http_->post(path, body, deadline));
  if (answer.status == 200) return std::move(answer.body);
  const Json error = Json::parse(answer.body, nullptr, false);
  const auto field = [&](const char* name) {
    return error.is_object() && error.contains(name) ? error[name] : Json();
  };
  if (field("code") == Json(kNoSuchLease))
    return make_error(ErrorCode::not_found, "the lease has run out");
  return make_error(
      ErrorCode::internal, "the store refuses {}: {} {}", path, answer.status,
      field("error").is_string() ? field("error").get<std::string>() : answer.body.substr(0, 200));
}

Result<EtcdValue> EtcdClient::get(const std::string& key, TimePoint deadline) {
  ASSIGN_OR_RETURN(const std::string text, call("/v3/kv/range", range_of(key).dump(), deadline));
  ASSIGN_OR_RETURN(const Json answer, parse(text));
  ASSIGN_OR_RETURN(auto values, read_values(answer));
  return std::move(values[key]);
}

Result<std::map<std::string, EtcdValue>> EtcdClient::list(const std::string& begins,
                                                          TimePoint deadline) {
  std::string end = begins;
  CHECK(!end.empty() && end.back() != '\xff');
  ++end.back();
  const Json range = {{"key", to_base64(begins)}, {"range_end", to_base64(end)}};
  ASSIGN_OR_RETURN(const std::string text, call("/v3/kv/range", range.dump(), deadline));
  ASSIGN_OR_RETURN(const Json answer, parse(text));
  return read_values(answer);
}

Result<EtcdOutcome> EtcdClient::transact(const EtcdTransaction& what, TimePoint deadline) {
  Json request = {
      {"compare", Json::array()}, {"success", Json::array()}, {"failure", Json::array()}};
  for (const EtcdCompare& compare : what.compare) request["compare"].push_back(to_json(compare));
  for (const EtcdChange& change : what.change) request["success"].push_back(to_json(change));
  for (const std::string& key : what.look)
    request["failure"].push_back({{"request_range", range_of(key)}});
  ASSIGN_OR_RETURN(const std::string text, call("/v3/kv/txn", request.dump(), deadline));
  ASSIGN_OR_RETURN(const Json answer, parse(text));
  EtcdOutcome outcome;
  const auto succeeded = answer.find("succeeded");
  if (succeeded != answer.end() && !succeeded->is_boolean()) return no_answer("succeeded");
  outcome.succeeded = succeeded != answer.end() && succeeded->get<bool>();
  ASSIGN_OR_RETURN(const Json header, member(answer, "header"));
  ASSIGN_OR_RETURN(outcome.revision, number(header, "revision"));
  if (outcome.revision == 0) return no_answer("it has no revision");
  if (outcome.succeeded || what.look.empty()) return outcome;
  const auto responses = answer.find("responses");
  if (responses == answer.end() || !responses->is_array() || responses->size() != what.look.size())
    return no_answer("responses");
  for (size_t i = 0; i < what.look.size(); ++i) {
    ASSIGN_OR_RETURN(const Json range, member((*responses)[i], "response_range"));
    ASSIGN_OR_RETURN(auto values, read_values(range));
    outcome.looked.push_back(std::move(values[what.look[i]]));
  }
  return outcome;
}

Result<EtcdLease> EtcdClient::grant(Duration ttl, TimePoint deadline) {
  const Json request = {{"TTL", std::to_string(ttl / std::chrono::seconds(1))}};
  ASSIGN_OR_RETURN(const std::string text, call("/v3/lease/grant", request.dump(), deadline));
  ASSIGN_OR_RETURN(const Json answer, parse(text));
  EtcdLease lease;
  ASSIGN_OR_RETURN(lease.id, number(answer, "ID"));
  ASSIGN_OR_RETURN(const int64_t seconds, number(answer, "TTL"));
  if (lease.id == 0 || seconds == 0 || seconds > 3600) return no_answer("a lease");
  lease.ttl = std::chrono::seconds(seconds);
  return lease;
}

Result<Duration> EtcdClient::renew(int64_t lease, TimePoint deadline) {
  const Json request = {{"ID", std::to_string(lease)}};
  ASSIGN_OR_RETURN(const std::string text, call("/v3/lease/keepalive", request.dump(), deadline));
  ASSIGN_OR_RETURN(const Json answer, parse(text));
  ASSIGN_OR_RETURN(const Json result, member(answer, "result"));
  ASSIGN_OR_RETURN(const int64_t id, number(result, "ID"));
  ASSIGN_OR_RETURN(const int64_t seconds, number(result, "TTL"));
  if (id != lease || seconds > 3600) return no_answer("a lease");
  return Duration(std::chrono::seconds(seconds));
}

Status EtcdClient::revoke(int64_t lease, TimePoint deadline) {
  const Json request = {{"ID", std::to_string(lease)}};
  const auto answer = call("/v3/lease/revoke", request.dump(), deadline);
  if (answer.ok() || answer.error().code == ErrorCode::not_found) return ok_status();
  return answer.error();
}

}  // namespace chainpump::actors
