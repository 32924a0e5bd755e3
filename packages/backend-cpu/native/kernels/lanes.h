// Loops over contiguous rows of floats by whole vectors, the end of a row as part of one; and memory for a call.
// Knows floats. Knows no kernel.
#pragma once

#include <memory>

#include "../memory.h"
#include "../simd.h"

#define ALWAYS_INLINE __attribute__((always_inline))

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// How a loop body reads and writes a whole vector.
struct Whole {
  Vec load(const float* from) const { return DIFFMAMBA_ISA::load(from); }
  void store(float* to, Vec v) const { DIFFMAMBA_ISA::store(to, v); }
  /// v, and `other` in lanes past the end of the row.
  Vec keep(Vec v, Vec) const { return v; }
};

/// How it does so with the first n lanes; the others are read as 0.
struct Part {
  int64_t n;
  Vec load(const float* from) const { return load_part(from, n); }
  void store(float* to, Vec v) const { store_part(to, v, n); }
  Vec keep(Vec v, Vec other) const {
    for (int i = 0; i < kLanes; i++) v[i] = i < n ? v[i] : other[i];
    return v;
  }
};

/// Sums and other results of a row are kept in so many vectors, so that an addition need not wait for the last.
constexpr int kChains = 4;

/// Calls body(lanes, i, chain) for each vector of 0 .. n, from element i on; `lanes` is a Whole or a Part. The chains take
/// turns, from 0 to kChains - 1.
template <typename Body>
inline ALWAYS_INLINE void each_vector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
    for (int chain = 0; chain < kChains; chain++) body(Whole{}, i + chain * kLanes, chain);
  }
  for (; i + kLanes <= n; i += kLanes) body(Whole{}, i, 0);
  if (i < n) body(Part{n - i}, i, 1);
}

struct Chains {
  Vec of[kChains];
  explicit Chains(float x) {
    for (Vec& v : of) v = splat(x);
  }
  Vec& operator[](int chain) { return of[chain]; }
  float sum() const { return DIFFMAMBA_ISA::sum((of[0] + of[1]) + (of[2] + of[3])); }
};

template <typename T, int N>
struct VectorOf {
  typedef T Type __attribute__((vector_size(N * sizeof(T))));
};

/// Sums that must not round are kept in so many doubles, or 64-bit integers, at once.
constexpr int kWide = kLanes / 2;

/// kWide elements as doubles or 64-bit integers.
template <typename Wide, typename T>
inline typename VectorOf<Wide, kWide>::Type load_wide(const T* from) {
  typename VectorOf<T, kWide>::Type elements;
  memcpy(&elements, from, sizeof elements);
  // Lane by lane: gcc makes one instruction of this, and four of __builtin_convertvector.
  typename VectorOf<Wide, kWide>::Type wide;
  for (int i = 0; i < kWide; i++) wide[i] = elements[i];
  return wide;
}

/// Uninitialised memory of the calling thread for one kernel call, kept for its next one. Null where there is none.
template <typename T>
T* scratch(int64_t count) {
  struct Free {
    void operator()(void* memory) const { free_aligned(memory); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t capacity = 0;
  if (static_cast<uint64_t>(count) > SIZE_MAX / sizeof(T)) return nullptr;
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  if (bytes > capacity) {
    memory.reset();
    memory.reset(allocate_aligned(bytes));
    capacity = memory ? bytes : 0;
  }
  return static_cast<T*>(memory.get());
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
