// Random numbers by counter: Philox 4x32-10 (Salmon et al. 2011), so that a number is found by its step and element and
// is the same on every backend.
// Knows 32-bit words. Knows no distribution.

#include "../kernels.h"
#include "lanes.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Blocks of four words that are computed side by side: more than a compiler unrolls, so that it makes vectors of them.
constexpr int kBlocks = 32;
constexpr int kWords = 4 * kBlocks;

struct Key {
  uint32_t low, high;
};

/// The words of kBlocks blocks from `first` on, in the order of their elements: counter (block, 0, step, 0).
void philox(uint32_t first, uint32_t step, Key key, uint32_t (&words)[kWords]) {
  uint32_t c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks];
  for (int i = 0; i < kBlocks; i++) {
    c0[i] = first + static_cast<uint32_t>(i);
    c1[i] = 0;
    c2[i] = step;
    c3[i] = 0;
  }
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < kBlocks; i++) {
      const uint64_t a = static_cast<uint64_t>(0xd2511f53u) * c0[i];
      const uint64_t b = static_cast<uint64_t>(0xcd9e8d57u) * c2[i];
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ key.low;
      c1[i] = static_cast<uint32_t>(b);
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ key.high;
      c3[i] = static_cast<uint32_t>(a);
    }
    key.low += 0x9e3779b9u;
    key.high += 0xbb67ae85u;
  }
  for (int i = 0; i < kBlocks; i++) {
    words[4 * i] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
}

}  // namespace

Error random(Args args) {
  const View out = args.view(), step = args.view();
  const uint32_t low = static_cast<uint32_t>(args.integer()), high = static_cast<uint32_t>(args.integer());
  const bool keep = args.flag();
  const uint64_t threshold = static_cast<uint64_t>(args.number());
  const uint32_t at = static_cast<uint32_t>(*step.as<int32_t>());
  const int64_t size = out.size();
  parallel_for((size + kWords - 1) / kWords, kPieceElements / kWords, [&](int64_t begin, int64_t end) {
    uint32_t words[kWords];
    for (int64_t group = begin; group < end; group++) {
      philox(static_cast<uint32_t>(group * kBlocks), at, {low, high}, words);
      const int64_t first = group * kWords;
      const int64_t n = size - first < kWords ? size - first : kWords;
      if (!keep) {
        memcpy(out.as<int32_t>() + first, words, static_cast<size_t>(n) * sizeof(int32_t));
        continue;
      }
      uint8_t kept[kWords];
      for (int i = 0; i < kWords; i++) kept[i] = words[i] >= threshold;
      memcpy(out.as<uint8_t>() + first, kept, static_cast<size_t>(n));
    }
  });
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
