// Advice to the kernel about a mapped file's pages. A hint: where the kernel refuses it, that costs
// time or memory, never correctness. Any thread.
#pragma once

#include <cstddef>
#include <span>

namespace chainpump::models {

/// madvise(2) on every page that `bytes` touches.
void advise_pages(std::span<const std::byte> bytes, int advice);

/// Gives back the pages that lie wholly within `bytes`.
void drop_pages(std::span<const std::byte> bytes);

}  // namespace chainpump::models
