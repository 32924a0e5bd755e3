// What the selective scan and its gradient share: sizes, the inputs as rows, and blocks of channels that are worked on
// together, each channel in a lane of its own.
// Knows views and vectors. Knows neither direction of time.
#pragma once

#include <initializer_list>

#include "../view.h"
#include "lanes.h"
#include "sequence.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// Channels of a block: two vectors of them, so that what is loaded for a state serves both.
constexpr int kVectors = 2;
constexpr int kBlock = kVectors * kLanes;

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
    if (row != nullptr) memcpy(&x, row + first, count == kBlock ? sizeof x : bytes());
    return x;
  }

  void store(float* row, const Channels& x) const {
    if (row != nullptr) memcpy(row + first, &x, count == kBlock ? sizeof x : bytes());
  }

  /// Asks for the channels of a row that will be wanted: rows are too far apart for the machine to foresee.
  void prefetch(const float* row) const {
    if (row != nullptr) __builtin_prefetch(row + first);
  }

  void clear(float* row) const { memset(row + first, 0, bytes()); }

  size_t bytes() const { return static_cast<size_t>(count) * sizeof(float); }

  /// to[n] = a row of a (D, N) matrix for each channel, times `scale`; 0 where there is no matrix.
  void load_states(const float* matrix, int64_t n, Channels* to, float scale = 1) const {
    float* const lanes = reinterpret_cast<float*>(to);
    memset(lanes, 0, static_cast<size_t>(n) * sizeof(Channels));
    if (matrix == nullptr) return;
    for (int64_t c = 0; c < count; c++) {
      const float* const row = matrix + (first + c) * n;
      for (int64_t i = 0; i < n; i++) lanes[i * kBlock + c] = row[i] * scale;
    }
  }

  void store_states(float* matrix, int64_t n, const Channels* from) const {
    if (matrix == nullptr) return;
    const float* const lanes = reinterpret_cast<const float*>(from);
    for (int64_t c = 0; c < count; c++) {
      float* const row = matrix + (first + c) * n;
      for (int64_t i = 0; i < n; i++) row[i] = lanes[i * kBlock + c];
    }
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

/// How many tokens ahead rows are asked for.
constexpr int64_t kAhead = 8;

/// e^(Delta A) is taken as 2^(Delta (A log2 e)).
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
