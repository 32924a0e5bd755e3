// What the selective scan and its gradient share: sizes, the inputs as rows, and channels that are worked on together, each
// in a lane of its own.
// Knows views and vectors. Knows neither direction of time.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "../view.h"
#include "lanes.h"
#include "sequence.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// Channels that are read and written together: a line of the cache.
constexpr int kBlock = 16;
constexpr int kVectors = kBlock / kLanes;

/// One number for each channel of a block.
struct Channels {
  Vec of[kVectors];
  Vec& operator[](int v) { return of[v]; }
  const Vec& operator[](int v) const { return of[v]; }
};

/// Channels first .. first + count of a row, at most kBlock; those missing are read as 0 and not written.
struct Block {
  int64_t first = 0;
  int64_t count = 0;

  Channels load(const float* row) const {
    Channels x{};
    if (row == nullptr) return x;
    if (count == kBlock) {
      for (int v = 0; v < kVectors; v++) x[v] = DIFFMAMBA_ISA::load(row + first + v * kLanes);
    } else {
      copy_part(&x, row + first);
    }
    return x;
  }

  void store(float* row, const Channels& x) const {
    if (row == nullptr) return;
    if (count == kBlock) {
      for (int v = 0; v < kVectors; v++) DIFFMAMBA_ISA::store(row + first + v * kLanes, x[v]);
    } else {
      copy_part(row + first, &x);
    }
  }

  /// Asks for the channels of a row that will be wanted: rows are too far apart for the machine to foresee.
  void prefetch(const float* row) const {
    if (row != nullptr) __builtin_prefetch(row + first);
  }

  void clear(float* row) const { memset(row + first, 0, static_cast<size_t>(count) * sizeof(float)); }

  /// to[v * n + i] = element i of the row of a (D, N) matrix of each channel of vector v, times `scale`; 0 where there is
  /// no matrix.
  void load_states(const float* matrix, int64_t n, Vec* to, float scale = 1) const {
    float* const lanes = reinterpret_cast<float*>(to);
    memset(lanes, 0, static_cast<size_t>(n) * sizeof(Channels));
    if (matrix == nullptr) return;
    for (int64_t c = 0; c < count; c++) {
      const float* const row = matrix + (first + c) * n;
      for (int64_t i = 0; i < n; i++) lanes[(c / kLanes * n + i) * kLanes + c % kLanes] = row[i] * scale;
    }
  }

  void store_states(float* matrix, int64_t n, const Vec* from) const {
    if (matrix == nullptr) return;
    const float* const lanes = reinterpret_cast<const float*>(from);
    for (int64_t c = 0; c < count; c++) {
      float* const row = matrix + (first + c) * n;
      for (int64_t i = 0; i < n; i++) row[i] = lanes[(c / kLanes * n + i) * kLanes + c % kLanes];
    }
  }

 private:
  /// Apart, or whole blocks would be copied by this too, slowly.
  __attribute__((noinline)) void copy_part(void* to, const void* from) const {
    memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  }
};

/// Rows one pitch apart; `row` is null where the view is absent.
struct ScanRows {
  float* data;
  int64_t pitch;

  ScanRows(const View& view, int inner) : data(view.as<float>()), pitch(view ? view.pitch(inner) : 0) {}

  float* row(int64_t i) const { return data == nullptr ? nullptr : data + i * pitch; }

  void clear(int64_t begin, int64_t end, const Block& block) const {
    for (int64_t i = begin; data != nullptr && i < end; i++) block.clear(row(i));
  }
};

/// The inputs, in the order in which they are packed.
struct SelectiveScan {
  View u_view, delta_view, A, B_view, C_view, D, z_view, delta_bias, initial_state, seq_idx, lengths;
  ScanRows u, delta, B, C, z;
  int64_t batch, length, channels, states, groups;

  explicit SelectiveScan(Args& args)
      : u_view(args.view()),
        delta_view(args.view()),
        A(args.view()),
        B_view(args.view()),
        C_view(args.view()),
        D(args.view()),
        z_view(args.view()),
        delta_bias(args.view()),
        initial_state(args.view()),
        seq_idx(args.view()),
        lengths(args.view()),
        u(u_view, 1),
        delta(delta_view, 1),
        B(B_view, 2),
        C(C_view, 2),
        z(z_view, 1),
        batch(u_view.shape[0]),
        length(u_view.shape[1]),
        channels(u_view.shape[2]),
        states(A.shape[1]),
        groups(B_view.shape[2]) {}

  int64_t row_end(int64_t b) const { return row_length(lengths, b, length); }
  bool restarts(int64_t b, int64_t t) const { return starts_sequence(seq_idx, b, length, t); }

  /// The first channel d with floor(d * groups / channels) = group.
  int64_t group_begin(int64_t group) const { return (group * channels + groups - 1) / groups; }

  /// The most channels of a group.
  int64_t group_size() const { return (channels + groups - 1) / groups; }

  /// Stretch `index` of `size` channels of a group, cut off where the group ends; of it the block at `offset`.
  Block block(int64_t group, int64_t index, int64_t size, int64_t offset = 0) const {
    const int64_t first = group_begin(group) + index * size + offset;
    const int64_t left = group_begin(group + 1) - first;
    return {first, left < 0 ? 0 : left < kBlock ? left : kBlock};
  }
};

/// B and C of some tokens, from one state on.
struct StateRows {
  const float *B, *C;
  int64_t B_pitch, C_pitch;

  StateRows(const SelectiveScan& scan, int64_t row, int64_t group)
      : B(scan.B.row(row) + group * scan.states),
        C(scan.C.row(row) + group * scan.states),
        B_pitch(scan.B.pitch),
        C_pitch(scan.C.pitch) {}

  StateRows from(int64_t state) const {
    StateRows rows = *this;
    rows.B += state;
    rows.C += state;
    return rows;
  }
};

/// So many states are in registers at a time.
constexpr int kStates = 4;

/// Calls body(count, i) for states i .. i + count, until all n are done; the count is a constant, kStates or 1.
template <typename Body>
inline ALWAYS_INLINE void each_states(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kStates <= n; i += kStates) body(std::integral_constant<int, kStates>{}, i);
  for (; i < n; i++) body(std::integral_constant<int, 1>{}, i);
}

/// e^(Delta A) is taken as 2^(Delta (A log2 e)).
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

/// The largest |A| log2 e of each channel, from (kVectors, N).
inline Channels largest(const Vec* A, int64_t n) {
  Channels most{};
  for (int v = 0; v < kVectors; v++) {
    for (int64_t i = 0; i < n; i++) most[v] = max(most[v], max(A[v * n + i], -A[v * n + i]));
  }
  return most;
}

/// Whether all exponents that it was shown are such that exp2_within does for them, which models' always are.
class Reach {
 public:
  void add(Vec exponent) { within_ &= exponent * exponent <= splat(126.0f * 126.0f); }
  bool within() const {
    int32_t all = -1;
    for (int i = 0; i < kLanes; i++) all &= within_[i];
    return all != 0;
  }

 private:
  VecInt within_ = ~VecInt{};
};

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
