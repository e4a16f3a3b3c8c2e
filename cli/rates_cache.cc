#include "cli/rates_cache.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "base/file_io.h"
#include "base/unique_fd.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::json;

constexpr size_t kFileBytesMax = 64 << 10;
// Outside of these nothing was measured on a real machine.
constexpr double kRateMin = 1e5;
constexpr double kRateMax = 1e18;

/// 0 if `json` is no believable rate.
double rate_of(const Json& json) {
  if (!json.is_number()) return 0;
  const double rate = json.get<double>();
  return std::isfinite(rate) && rate >= kRateMin && rate <= kRateMax ? rate : 0;
}

double rate_of(const Json& json, const char* name) {
  const auto it = json.find(name);
  return it == json.end() ? 0 : rate_of(*it);
}

}  // namespace

bool read_rates(const std::filesystem::path& folder, const RatesKey& key,
                graph::MachineProfile& machine) {
  if (folder.empty()) return false;
  const auto text = read_small_file(folder / key.file_name, kFileBytesMax);
  if (!text) return false;
  const Json json = Json::parse(*text, nullptr, false);  // not recursive: nesting cannot hurt
  if (!json.is_object()) return false;
  const auto stored_key = json.find("key");
  const auto reads = json.find("read_bytes_per_s");
  if (stored_key == json.end() || *stored_key != key.text || reads == json.end() ||
      !reads->is_array() || reads->size() != key.num_cores)
    return false;
  graph::MachineProfile found;
  for (const Json& read : *reads) {
    found.read_bytes_per_s.push_back(rate_of(read));
    if (found.read_bytes_per_s.back() == 0) return false;
  }
  found.int8_ops_per_s = rate_of(json, "int8_ops_per_s");
  found.f32_ops_per_s = rate_of(json, "f32_ops_per_s");
  found.bf16_ops_per_s = rate_of(json, "bf16_ops_per_s");
  if (found.int8_ops_per_s == 0 || found.f32_ops_per_s == 0 || found.bf16_ops_per_s == 0)
    return false;
  machine.read_bytes_per_s = std::move(found.read_bytes_per_s);
  machine.int8_ops_per_s = found.int8_ops_per_s;
  machine.f32_ops_per_s = found.f32_ops_per_s;
  machine.bf16_ops_per_s = found.bf16_ops_per_s;
  return true;
}

void write_rates(const std::filesystem::path& folder, const RatesKey& key,
                 const graph::MachineProfile& machine) {
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return;
  const Json json = {{"key", key.text},
                     {"read_bytes_per_s", machine.read_bytes_per_s},
                     {"int8_ops_per_s", machine.int8_ops_per_s},
                     {"f32_ops_per_s", machine.f32_ops_per_s},
                     {"bf16_ops_per_s", machine.bf16_ops_per_s}};
  const std::string text = json.dump(1, ' ', true, Json::error_handler_t::replace) + "\n";
  std::string temporary = (folder / ".rates-XXXXXX").string();
  const UniqueFd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return;
  const std::string path = (folder / key.file_name).string();
  if (!write_whole(fd.get(), std::as_bytes(std::span(text))) ||
      rename(temporary.c_str(), path.c_str()) != 0)
    unlink(temporary.c_str());
}

}  // namespace chainpump::cli
