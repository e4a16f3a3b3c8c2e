#include "kernels/cpu/isa.h"

#include <array>
#include <string>

namespace chainpump::kernels::cpu {
namespace {
constexpr std::array<Isa, 3> kAllIsas = {Isa::reference, Isa::avx2, Isa::avx512};

bool machine_has(Isa isa) {
  switch (isa) {
    case Isa::reference:
      return true;
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::avx512:
      return machine_has(Isa::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512bf16");
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
