// CHECK: a bug is found here, on in release too; it prints the operands and aborts, and the
// process is replaced. DCHECK is for hot loops only and vanishes in release builds. Errors of the
// world are not bugs: they are Results (base/result.h).
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace chainpump {

/// Prints `file:line: CHECK failed: what` to standard error and aborts.
[[noreturn]] void check_failed(const char* file, int line, std::string_view what);

template <typename A, typename B>
[[noreturn]] void check_op_failed(const char* file, int line, const char* text, const A& a,
                                  const B& b) {
  check_failed(file, line, fmt::format("{} ({} vs {})", text, a, b));
}

}  // namespace chainpump

#define CHECK(cond)                                                                         \
  do {                                                                                      \
    if (__builtin_expect(!(cond), 0)) ::chainpump::check_failed(__FILE__, __LINE__, #cond); \
  } while (false)
#define CHECK_MSG(cond, ...)                                                                \
  do {                                                                                      \
    if (__builtin_expect(!(cond), 0))                                                       \
      ::chainpump::check_failed(__FILE__, __LINE__, #cond ": " + fmt::format(__VA_ARGS__)); \
  } while (false)
#define CHAINPUMP_CHECK_OP(op, a, b)                                                         \
  do {                                                                                       \
    const auto& check_a = (a);                                                               \
    const auto& check_b = (b);                                                               \
    if (__builtin_expect(!(check_a op check_b), 0))                                          \
      ::chainpump::check_op_failed(__FILE__, __LINE__, #a " " #op " " #b, check_a, check_b); \
  } while (false)
#define CHECK_EQ(a, b) CHAINPUMP_CHECK_OP(==, a, b)
#define CHECK_NE(a, b) CHAINPUMP_CHECK_OP(!=, a, b)
#define CHECK_LE(a, b) CHAINPUMP_CHECK_OP(<=, a, b)
#define CHECK_LT(a, b) CHAINPUMP_CHECK_OP(<, a, b)
#define CHECK_GE(a, b) CHAINPUMP_CHECK_OP(>=, a, b)
#define CHECK_GT(a, b) CHAINPUMP_CHECK_OP(>, a, b)
#ifdef NDEBUG
#define DCHECK(cond) static_cast<void>(0)
#else
#define DCHECK(cond) CHECK(cond)
#endif
