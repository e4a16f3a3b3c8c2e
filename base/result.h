// Result<T>: a value or an Error, for everything the world can do to us (files, sockets, peers).
// Bugs are CHECKed instead (base/check.h). Error codes are named by what the caller should do; the
// same list stands in schemas/control.capnp and, later, in HTTP bodies. Any thread; no allocation
// on the success path beyond T's own.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace chainpump {

enum class ErrorCode : uint8_t {
  invalid_argument = 1,   // the input is wrong and will stay wrong: fix it
  bad_file = 2,           // a file is damaged, lying or of an unknown format
  no_room = 3,            // memory, blocks or devices do not suffice: plan smaller
  overloaded = 4,         // full now: retry later
  disconnected = 5,       // the peer is gone: reconnect or repair
  deadline_exceeded = 6,  // time ran out
  cancelled = 7,          // somebody asked for it to stop
  not_found = 8,          // no such thing
  unimplemented = 9,      // this build cannot do it
  internal = 10,          // our fault, or the system's; see the message
};

/// The code's name as it stands in schemas and reports, e.g. "deadline_exceeded".
std::string_view to_string(ErrorCode code);

/// What happened, where, and what to do, in one or more lines for a person.
struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;
};

template <typename... Args>
[[nodiscard]] Error make_error(ErrorCode code, fmt::format_string<Args...> text, Args&&... args) {
  return Error{code, fmt::format(text, std::forward<Args>(args)...)};
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    CHECK_MSG(ok(), "Result holds an error: {}", error_text());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    CHECK_MSG(ok(), "Result holds an error: {}", error_text());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    CHECK_MSG(ok(), "Result holds an error: {}", error_text());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    CHECK(!ok());
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    CHECK(!ok());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::string_view error_text() const {
    const Error* error = std::get_if<1>(&state_);
    return error ? std::string_view(error->message) : std::string_view();
  }

  std::variant<T, Error> state_;
};

/// Success without a value: `return ok_status();`.
struct Ok {};
using Status = Result<Ok>;
inline Status ok_status() { return Ok{}; }

}  // namespace chainpump

#define CHAINPUMP_CONCAT_INNER(a, b) a##b
#define CHAINPUMP_CONCAT(a, b) CHAINPUMP_CONCAT_INNER(a, b)

/// Leaves the function with the error of `expr`, if it is one.
#define RETURN_IF_ERROR(expr)                               \
  do {                                                      \
    if (auto status_of_expr = (expr); !status_of_expr.ok()) \
      return std::move(status_of_expr).error();             \
  } while (false)

/// Declares or assigns `lhs` from a Result, or leaves the function with its error.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_INNER(CHAINPUMP_CONCAT(result_of_expr_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(tmp, lhs, expr)  \
  auto tmp = (expr);                            \
  if (!tmp.ok()) return std::move(tmp).error(); \
  lhs = std::move(tmp).value()
