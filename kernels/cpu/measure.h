// A quick look at this machine for the planner and the kernel bench: how fast weights can be read
// and multiplied. Takes under 100 ms; wants an otherwise idle machine, and says nothing about how
// idle it was. Call from the thread that owns the team.
#pragma once

#include "kernels/cpu/isa.h"
#include "kernels/cpu/team.h"

namespace chainpump::kernels::cpu {

/// All rates are for the whole team.
struct MachineRates {
  int num_threads = 1;
  double read_bytes_per_second = 0;  // from memory, sequential
  double int8_ops_per_second = 0;    // 2 per multiply-add, registers only
  double f32_ops_per_second = 0;
  double bf16_ops_per_second = 0;
};

MachineRates measure_machine(Isa isa, Team& team);

}  // namespace chainpump::kernels::cpu
