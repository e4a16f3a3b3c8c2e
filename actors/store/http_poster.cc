#include "actors/store/http_poster.h"

#include <curl/curl.h>

#include <algorithm>

namespace chainpump::actors {
namespace {

constexpr Duration kTryMax = std::chrono::milliseconds(400);
constexpr Duration kConnectMax = std::chrono::milliseconds(250);
constexpr size_t kBodyMax = 8 << 20;

struct Sink {
  std::string body;
  static size_t write(char* bytes, size_t, size_t num_bytes, void* sink) {
    std::string& body = static_cast<Sink*>(sink)->body;
    if (body.size() + num_bytes > kBodyMax) return 0;  // which ends the transfer
    body.append(bytes, num_bytes);
    return num_bytes;
  }
};

bool init_library() {
  static const bool done = ::curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return done;
}

long milliseconds(Duration duration) {
  return std::max(1L, static_cast<long>(duration / std::chrono::milliseconds(1)));
}

}  // namespace

struct HttpPoster::Impl {
  explicit Impl(HttpServers given) : servers(std::move(given)) {}
  ~Impl() {
    ::curl_slist_free_all(headers);
    ::curl_easy_cleanup(curl);
  }

  void set_up() {
    headers = ::curl_slist_append(nullptr, "Content-Type: application/json");
    ::curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    ::curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, servers.authority.empty() ? "http" : "https");
    ::curl_easy_setopt(curl, CURLOPT_PROXY, "");  // nor any that the environment names
    ::curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Sink::write);
    ::curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    if (servers.authority.empty()) return;
    ::curl_easy_setopt(curl, CURLOPT_CAINFO, servers.authority.c_str());
    ::curl_easy_setopt(curl, CURLOPT_CAPATH, nullptr);
    if (!servers.certificate.empty())
      ::curl_easy_setopt(curl, CURLOPT_SSLCERT, servers.certificate.c_str());
    if (!servers.key.empty()) ::curl_easy_setopt(curl, CURLOPT_SSLKEY, servers.key.c_str());
  }

  Result<HttpAnswer> ask(const std::string& server, const std::string& path,
                         const std::string& body, Duration lasts) {
    Sink sink;
    const std::string url =
        fmt::format("{}://{}{}", servers.authority.empty() ? "http" : "https", server, path);
    ::curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    ::curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
    ::curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    ::curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, milliseconds(lasts));
    ::curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(std::min(lasts, kConnectMax)));
    ::curl_easy_setopt(curl, CURLOPT_WRITEDATA, &sink);
    why[0] = 0;
    const CURLcode done = ::curl_easy_perform(curl);
    if (done != CURLE_OK)
      return make_error(code_of(done), "{}: {}", server,
                        why[0] != 0 ? why : ::curl_easy_strerror(done));
    long status = 0;
    ::curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status >= 500)
      return make_error(ErrorCode::disconnected, "{}: answers {}: {}", server, status,
                        sink.body.substr(0, 200));
    return HttpAnswer{static_cast<int>(status), std::move(sink.body)};
  }

  static ErrorCode code_of(CURLcode code) {
    if (code == CURLE_OPERATION_TIMEDOUT) return ErrorCode::deadline_exceeded;
    if (code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CACERT_BADFILE)
      return ErrorCode::invalid_argument;
    return ErrorCode::disconnected;
  }

  const HttpServers servers;
  CURL* curl = nullptr;
  curl_slist* headers = nullptr;
  char why[CURL_ERROR_SIZE] = {};
  size_t next = 0;  // who is asked first
};

HttpPoster::HttpPoster(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpPoster::~HttpPoster() = default;

Result<std::unique_ptr<HttpPoster>> HttpPoster::create(HttpServers servers) {
  CHECK(!servers.addresses.empty());
  auto impl = std::make_unique<Impl>(std::move(servers));
  if (init_library()) impl->curl = ::curl_easy_init();
  if (impl->curl == nullptr)
    return make_error(ErrorCode::no_room, "the HTTP library cannot be initialized");
  impl->set_up();
  return std::unique_ptr<HttpPoster>(new HttpPoster(std::move(impl)));
}

Result<HttpAnswer> HttpPoster::post(const std::string& path, const std::string& body,
                                    TimePoint deadline) {
  Impl& impl = *impl_;
  const size_t num_servers = impl.servers.addresses.size();
  Error last = make_error(ErrorCode::deadline_exceeded, "there is no time to ask");
  for (size_t i = 0; i < num_servers; ++i) {
    const Duration left = deadline - steady_clock().now();
    if (left <= Duration(0)) break;
    Result<HttpAnswer> answer =
        impl.ask(impl.servers.addresses[impl.next], path, body, std::min(left, kTryMax));
    if (answer.ok()) return answer;
    last = std::move(answer).error();
    impl.next = (impl.next + 1) % num_servers;
  }
  return last;
}

}  // namespace chainpump::actors
