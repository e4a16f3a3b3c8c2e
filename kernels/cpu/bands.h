// The sizes of band_sums(): for generic code and for the files of one instruction set alike.
#pragma once

namespace chainpump::kernels::cpu {

inline constexpr int kNumBands = 128;
inline constexpr int kBandLanes = 4;   // neighbours often fall into one band: each adds to its own
inline constexpr int kBandsAhead = 4;  // vectors whose weights are made before they are added

}  // namespace chainpump::kernels::cpu
