// A batch of matrix products, and what went wrong in one of the pieces that it was shared out in.
// Knows layouts. Knows no way to multiply.
#pragma once

#include <atomic>

#include "../kernels.h"
#include "matmul_block.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Says whether all pieces had memory.
class Memory {
 public:
  void note(bool found) {
    if (!found) missing_.store(true, std::memory_order_relaxed);
  }

  Error error(const Product& p) const {
    if (!missing_.load(std::memory_order_relaxed)) return nullptr;
    return fail("out of memory while packing the factors of (%lld, %lld) x (%lld, %lld)",
                static_cast<long long>(p.rows), static_cast<long long>(p.depth), static_cast<long long>(p.depth),
                static_cast<long long>(p.columns));
  }

 private:
  std::atomic<bool> missing_{false};
};

/// The product of each of `count` batches, `steps` bytes apart in left, right and out.
struct Batch {
  Product first;
  int64_t count;
  int64_t steps[3];

  Product at(int64_t n) const {
    Product p = first;
    p.left.data += n * steps[0];
    p.right.data += n * steps[1];
    p.out.data += n * steps[2];
    return p;
  }

  Batch transposed() const { return {first.transposed(), count, {steps[1], steps[0], steps[2]}}; }
};

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
