// The sizes of band_sums(): for generic code and for the files of one instruction set alike.
#pragma once

namespace chainpump::kernels::cpu {

inline constexpr int kNumBands = 128;
inline constexpr int kBandLanes = 4;    // neighbours often fall into one band: each adds to its own
inline constexpr int kBandChunk = 512;  // values whose weights are all made before any is added

}  // namespace chainpump::kernels::cpu
