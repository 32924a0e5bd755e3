// What the causal convolution and its gradient share: sizes, and blocks of channels that go through a row's sequences some
// tokens at a time.
// Knows rows of floats. Knows no shape rule.
#pragma once

#include <type_traits>

#include "../kernels.h"
#include "lanes.h"
#include "sequence.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// Channels of a block at most: the more of a row is read at once, the sooner the machine foresees it.
constexpr int64_t kMostChannels = 512;

/// Rows of scratch are so far apart: a line more than a block, or all rows would compete for the same lines of the cache.
constexpr int64_t kRow = kMostChannels + 16;

/// Tokens that are worked on together, so that a weight is loaded once for all of them.
constexpr int kTokens = 4;

struct ConvRows {
  float* data;
  int64_t pitch;
  explicit ConvRows(const View& view) : data(view.as<float>()), pitch(view ? view.pitch(1) : 0) {}
  float* row(int64_t i, int64_t column) const { return data == nullptr ? nullptr : data + i * pitch + column; }
};

/// The inputs, in the order in which they are packed.
struct Conv {
  View x_view, weight, bias, initial_state, seq_idx, lengths;
  ConvRows x;
  int64_t batch, length, channels, width;
  /// Channels of a block, and blocks of a row.
  int64_t block, blocks;

  explicit Conv(Args& args)
      : x_view(args.view()),
        weight(args.view()),
        bias(args.view()),
        initial_state(args.view()),
        seq_idx(args.view()),
        lengths(args.view()),
        x(x_view),
        batch(x_view.shape[0]),
        length(x_view.shape[1]),
        channels(x_view.shape[2]),
        width(weight.shape[1]),
        block(kMostChannels) {
    // Smaller ones where there would be too few for several threads to share.
    constexpr int64_t kLeastChannels = 64, kEnough = 16;
    while (block > kLeastChannels && batch * ((channels + block - 1) / block) < kEnough) block /= 2;
    blocks = (channels + block - 1) / block;
  }
};

/// Rows of tokens that follow each other, `pitch` apart.
template <typename T>
struct Strip {
  T* data;
  int64_t pitch;
  T* row(int64_t i) const { return data + i * pitch; }
};
using Input = Strip<const float>;
using Output = Strip<float>;

/// Tokens start .. end of a row.
struct Sequence {
  int64_t start, end;
};

/// One block of one row of the batch, with the memory of its thread, in rows of kRow.
class ConvBlock {
 public:
  /// Rows of memory that a block takes, with `extra` for its caller.
  static int64_t rows(int64_t width, int64_t extra) { return 3 * width + 2 + extra; }

  ConvBlock(const Conv& conv, float* memory, int64_t piece)
      : b(piece / conv.blocks),
        first(piece % conv.blocks * conv.block),
        count(conv.channels - first < conv.block ? conv.channels - first : conv.block),
        end(row_length(conv.lengths, b, conv.length)),
        conv_(conv),
        weight_(memory),
        initial_(weight_ + conv.width * kRow),
        inputs_(initial_ + conv.width * kRow),
        zeros_(inputs_ + conv.width * kRow),
        bias_(zeros_ + kRow) {
    memset(memory, 0, static_cast<size_t>(rows(conv.width, 0) * kRow) * sizeof(float));
    const float* const from = conv.weight.as<float>() + first * conv.width;
    columns(from, [&](int64_t k, int64_t c, const float& w) { weight_[k * kRow + c] = w; });
    if (conv.bias) memcpy(bias_, conv.bias.as<float>() + first, bytes());
    if (!conv.initial_state) return;
    const float* const state = conv.initial_state.as<float>() + (b * conv.channels + first) * conv.width;
    columns(state, [&](int64_t k, int64_t c, const float& h) { initial_[k * kRow + c] = h; });
  }

  const int64_t b, first, count, end;

  const float* weight(int64_t k) const { return weight_ + k * kRow; }
  const float* bias() const { return bias_; }
  Input zeros() const { return {zeros_, 0}; }
  float* extra() const { return bias_ + kRow; }
  size_t bytes() const { return static_cast<size_t>(count) * sizeof(float); }

  /// Calls body(k, c, element) for what is (channels, W) in memory.
  template <typename T, typename Body>
  void columns(T* matrix, const Body& body) const {
    for (int64_t c = 0; c < count; c++) {
      for (int64_t k = 0; k < conv_.width; k++) body(k, c, matrix[c * conv_.width + k]);
    }
  }

  /// Calls body(sequence) for each sequence of the row.
  template <typename Body>
  void each_sequence(const Body& body) const {
    for (int64_t start = 0, t = 1; start < end; t++) {
      if (t < end && !starts_sequence(conv_.seq_idx, b, conv_.length, t)) continue;
      body(Sequence{start, t});
      start = t;
    }
  }

  /// Where the row's last sequence begins.
  int64_t last_start() const {
    int64_t t = conv_.seq_idx ? end - 1 : 0;
    while (t > 0 && !starts_sequence(conv_.seq_idx, b, conv_.length, t)) t--;
    return t < 0 ? 0 : t;
  }

  /// The W inputs up to position t as a sequence that begins at `start` sees them: before position 0 the initial state,
  /// whose column W - 1 is position -1, and otherwise zeros. If all are of the sequence, more of its inputs follow.
  Input inputs(int64_t t, int64_t start) const {
    const int64_t from = t - conv_.width + 1;
    if (from >= start) return {conv_.x.row(b * conv_.length + from, first), conv_.x.pitch};
    for (int64_t k = 0; k < conv_.width; k++) {
      const int64_t position = from + k;
      const float* input = zeros_;
      if (position >= start) {
        input = conv_.x.row(b * conv_.length + position, first);
      } else if (start == 0) {
        input = initial_ + (conv_.width + position) * kRow;
      }
      memcpy(inputs_ + k * kRow, input, bytes());
    }
    return {inputs_, kRow};
  }

 private:
  const Conv& conv_;
  float *weight_, *initial_, *inputs_, *zeros_, *bias_;
};

/// Calls body(tokens, t) for all tokens of a sequence, `tokens` of them at a time, a constant: the first ones, whose inputs
/// begin before the sequence, one by one.
template <typename Body>
inline ALWAYS_INLINE void each_tokens(const Sequence& sequence, int64_t width, const Body& body) {
  for (int64_t t = sequence.start; t < sequence.end;) {
    if (t - width + 1 >= sequence.start && t + kTokens <= sequence.end) {
      body(std::integral_constant<int, kTokens>{}, t);
      t += kTokens;
    } else {
      body(std::integral_constant<int, 1>{}, t);
      t++;
    }
  }
}

/// Calls body(width): a constant where it is that of the published models.
template <typename Body>
inline ALWAYS_INLINE void with_width(int64_t width, const Body& body) {
  if (width == 4) {
    body(std::integral_constant<int64_t, 4>{});
  } else {
    body(width);
  }
}

/// s = bias + sum_k w_k x_{t-W+1+k} for T tokens and a vector of channels. Asks for the inputs of the tokens after them.
template <int T, typename Width, typename Lanes>
inline ALWAYS_INLINE void convolve(const Lanes& lanes, const ConvBlock& block, const Input& x, Width width, int64_t c,
                                   Vec (&s)[T]) {
  for (int i = 0; i < T; i++) s[i] = load(block.bias() + c);
  for (int64_t k = 0; k < width; k++) {
    const Vec w = load(block.weight(k) + c);
    for (int i = 0; i < T; i++) s[i] += w * lanes.load(x.row(i + k) + c);
  }
  for (int i = 0; i < T; i++) __builtin_prefetch(x.row(width - 1 + T + i) + c, 0, 2);
}

inline Error no_memory_for_convolution() { return fail("out of memory for a convolution of the mixer"); }

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
