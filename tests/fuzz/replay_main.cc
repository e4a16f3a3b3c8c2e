// Replays a corpus through a fuzz harness without libFuzzer: runs every file of the given folders
// (in order of name) through LLVMFuzzerTestOneInput. Fails if a folder is missing or empty, or an
// input takes longer than a second (five under a sanitizer), so that a hang is a failure.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSecondsMax = 5.0;
#else
constexpr double kSecondsMax = 1.0;
#endif

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

bool replay(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
  // An exact copy on the heap, so that a sanitizer sees a read past the end.
  std::vector<uint8_t> input(bytes.begin(), bytes.end());
  input.shrink_to_fit();
  std::fprintf(stderr, "%s (%zu bytes)\n", path.c_str(), input.size());
  const auto start = std::chrono::steady_clock::now();
  LLVMFuzzerTestOneInput(input.data(), input.size());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (took.count() <= kSecondsMax) return true;
  std::fprintf(stderr, "%s: took %.2f s\n", path.c_str(), took.count());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  bool good = argc > 1;
  for (int i = 1; i < argc; ++i) {
    const auto files = files_in(argv[i]);
    if (files.empty()) {
      std::fprintf(stderr, "%s: no corpus there\n", argv[i]);
      good = false;
    }
    for (const auto& file : files) good = replay(file) && good;
  }
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
