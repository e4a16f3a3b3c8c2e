// Which instruction set the kernels use. The name of the choice is part of a rank's numerics id:
// results may differ between instruction sets, never within one. Pure but for cpuid; any thread.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chainpump::kernels::cpu {

enum class Isa { reference, avx2, avx512 };  // avx512: F, BW, DQ, VL, VNNI and BF16

std::string_view to_string(Isa isa);
/// What this machine can run, best last; `reference` is always there.
std::vector<Isa> available_isas();
/// `forced` is the value of CHAINPUMP_ISA, or empty for the best there is. invalid_argument if the
/// name is unknown or the machine lacks it.
Result<Isa> choose_isa(std::string_view forced);

}  // namespace chainpump::kernels::cpu
