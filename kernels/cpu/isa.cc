#include "kernels/cpu/isa.h"

#include <cpuid.h>

#include <array>
#include <string>

namespace chainpump::kernels::cpu {
namespace {
constexpr std::array<Isa, 3> kAllIsas = {Isa::reference, Isa::avx2, Isa::avx512};

// One bit of cpuid; not every compiler's __builtin_cpu_supports knows these names.
bool has_f16c() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c >> 29 & 1) != 0;
}
bool has_avx512_bf16() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
}

bool machine_has(Isa isa) {
  switch (isa) {
    case Isa::reference:
      return true;
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Isa::avx512:
      return machine_has(Isa::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
             has_avx512_bf16();
  }
  return false;
}
}  // namespace

std::string_view to_string(Isa isa) {
  switch (isa) {
    case Isa::reference:
      return "reference";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "unknown";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kAllIsas)
    if (machine_has(isa)) isas.push_back(isa);
  return isas;
}

Result<Isa> choose_isa(std::string_view forced) {
  if (forced.empty()) return available_isas().back();
  for (const Isa isa : kAllIsas) {
    if (to_string(isa) != forced) continue;
    if (machine_has(isa)) return isa;
    return make_error(ErrorCode::invalid_argument, "CHAINPUMP_ISA={}: this machine lacks it",
                      forced);
  }
  return make_error(ErrorCode::invalid_argument,
                    "CHAINPUMP_ISA={}: unknown; one of reference, avx2, avx512", forced);
}

}  // namespace chainpump::kernels::cpu
