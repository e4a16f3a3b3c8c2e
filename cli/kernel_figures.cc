#include "cli/kernel_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "cli/kernel_timing.h"
#include "kernels/cpu/matmul.h"

namespace chainpump::cli {
namespace {

using kernels::cpu::ActivationBuffer;
using kernels::cpu::ActivationForm;
using kernels::cpu::ActivationPrecision;
using kernels::cpu::MachineRates;
using kernels::cpu::PackedMatrix;
using kernels::cpu::TeamMember;

constexpr int64_t kColdBytes = int64_t{64} << 20;
constexpr int64_t kManyTokens = 64;
constexpr int64_t kRowsMaxForMany = 2048;

/// Rows as they lie in a file. Any bits will do as quants; scales and floats are kept small, as
/// products of large ones overflow, and arithmetic with infinities is not what is measured.
std::vector<std::byte> random_rows(DType type, int64_t rows, int64_t cols) {
  std::vector<std::byte> raw(static_cast<size_t>(rows * row_bytes(type, cols)));
  std::mt19937_64 random(1);
  const uint64_t normal = type == DType::f32                          ? 0x3000000030000000
                          : type == DType::f16 || type == DType::bf16 ? 0x3000300030003000
                                                                      : 0;  // none subnormal
  for (size_t at = 0; at + 8 <= raw.size(); at += 8) {
    const uint64_t bits = (random() & 0x3b3b3b3b3b3b3b3b) | normal;
    std::memcpy(raw.data() + at, &bits, 8);
  }
  return raw;
}

double peak_of(const MachineRates& rates, ActivationForm form) {
  switch (form) {
    case ActivationForm::f32:
      return rates.f32_ops_per_second;
    case ActivationForm::int8:
      return rates.int8_ops_per_second;
    case ActivationForm::int16:
      return rates.int8_ops_per_second / 2;
    case ActivationForm::bf16:
      return rates.bf16_ops_per_second;
  }
  return 0;
}

/// Seconds that one matrix takes, of several that are gone through in turn.
double time_products(const KernelBench& bench, const std::vector<PackedMatrix>& copies,
                     int64_t num_tokens) {
  const int64_t rows = copies[0].rows();
  const int64_t cols = copies[0].cols();
  const auto x = random_floats(num_tokens * cols);
  std::vector<float> y(static_cast<size_t>(num_tokens * rows));
  ActivationBuffer buffer(bench.isa, num_tokens, cols);
  bench.team->run([&](TeamMember& member) {
    buffer.prepare(member, copies[0].form(), x.data(), num_tokens, cols, cols);
  });
  const double time = median_seconds([&] {
    bench.team->run([&](TeamMember& member) {
      for (const PackedMatrix& matrix : copies) {
        matmul(member, matrix, buffer, num_tokens, y.data(), rows, kernels::cpu::Store::assign);
        member.barrier();
      }
    });
  });
  return time / static_cast<double>(copies.size());
}

std::vector<PackedMatrix> pack_copies(const KernelBench& bench, DType type, int64_t rows,
                                      int64_t cols, int64_t bytes_min) {
  const std::vector<std::byte> raw = random_rows(type, rows, cols);
  kernels::cpu::PanelArena arena;
  std::vector<PackedMatrix> copies;
  int64_t bytes = 0;
  do {
    PackedMatrix packed = PackedMatrix::pack(bench.isa, type, ActivationPrecision::normal, rows,
                                             cols, raw, *bench.team, &arena);
    bytes += packed.bytes();
    copies.push_back(std::move(packed));
  } while (bytes < bytes_min);
  return copies;
}

}  // namespace

std::vector<KernelFigure> measure_product(const KernelBench& bench, const MachineRates& rates,
                                          const std::string& operation, DType type, int64_t rows,
                                          int64_t cols, const std::vector<int64_t>& tokens) {
  const int64_t rows_cold =
      std::clamp<int64_t>(kColdBytes / row_bytes(type, cols) / 16 * 16, 16, rows);
  const auto cold = pack_copies(bench, type, rows_cold, cols, kColdBytes);
  const auto warm = pack_copies(bench, type, std::min(rows, kRowsMaxForMany), cols, 0);
  std::vector<KernelFigure> figures;
  for (const int64_t num_tokens : tokens) {
    const auto& copies = num_tokens > kManyTokens ? warm : cold;
    const double time = time_products(bench, copies, num_tokens);
    const double read = static_cast<double>(copies[0].bytes()) / time;
    const double ops = 2.0 * static_cast<double>(copies[0].rows() * cols * num_tokens) / time;
    const double peak = peak_of(rates, copies[0].form());
    const bool reads = read / rates.read_bytes_per_second > ops / peak;
    figures.push_back({operation, type, fmt::format("{} x {}", rows, cols), num_tokens,
                       (reads ? read : ops) / 1e9,
                       (reads ? rates.read_bytes_per_second : peak) / 1e9, reads ? "GB/s" : "Gop/s",
                       ops / 1e9});
  }
  return figures;
}

}  // namespace chainpump::cli
