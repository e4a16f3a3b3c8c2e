// JSON posted to one of several servers that are as good as each other: the wall round libcurl.
// Whoever answered last is asked first; one that is silent, away or says that it cannot serve now
// (5xx) is left for the next. A call that was not answered may have been carried out all the same,
// now or later: whoever calls sees to it that this does no harm. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::actors {

struct HttpServers {
  std::vector<std::string> addresses;  // HOST:PORT, one at least
  // Files in PEM. With an authority the servers are spoken to over TLS, and must be certified by
  // it; with certificate and key, we are certified to them.
  std::string authority = {};
  std::string certificate = {};
  std::string key = {};
};

struct HttpAnswer {
  int status = 0;  // 200 to 499
  std::string body;
};

class HttpPoster {
 public:
  /// no_room.
  static Result<std::unique_ptr<HttpPoster>> create(HttpServers servers);
  ~HttpPoster();
  HttpPoster(const HttpPoster&) = delete;
  HttpPoster& operator=(const HttpPoster&) = delete;

  /// Each server is asked once at most. deadline_exceeded, disconnected: what the last one failed
  /// with; invalid_argument: the certificates' files.
  Result<HttpAnswer> post(const std::string& path, const std::string& body, TimePoint deadline);

 private:
  struct Impl;
  explicit HttpPoster(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::actors
