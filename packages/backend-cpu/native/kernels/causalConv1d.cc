// The causal depthwise convolution of the mixers and its gradient: a block of channels at a time through a row's tokens,
// its weights and the window of gradients in the nearest cache. Sums over batches are added in order.
// Knows rows of floats. Knows no shape rule.

#include <algorithm>
#include <atomic>

#include "../kernels.h"
#include "../pool.h"
#include "lanes.h"
#include "sequence.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Channels of a block; its rows of scratch are so long.
constexpr int64_t kChannels = 256;

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
  int64_t batch, length, channels, width, blocks;

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
        blocks((channels + kChannels - 1) / kChannels) {}
};

/// The inputs of a token's taps: row k of W, `step` apart.
struct Taps {
  const float* data;
  int64_t step;
};

/// One block of one row of the batch, with the memory of its thread: rows of kChannels.
class ConvBlock {
 public:
  /// Rows of memory that a block takes, with `extra` for its caller.
  static int64_t rows(int64_t width, int64_t extra) { return 3 * width + 2 + extra; }

  ConvBlock(const Conv& conv, float* memory, int64_t piece)
      : b(piece / conv.blocks),
        first(piece % conv.blocks * kChannels),
        count(conv.channels - first < kChannels ? conv.channels - first : kChannels),
        end(row_length(conv.lengths, b, conv.length)),
        conv_(conv),
        weight_(memory),
        initial_(memory + conv.width * kChannels),
        inputs_(memory + 2 * conv.width * kChannels),
        zeros_(memory + 3 * conv.width * kChannels),
        bias_(zeros_ + kChannels),
        extra_(bias_ + kChannels) {
    memset(memory, 0, static_cast<size_t>(rows(conv.width, 0) * kChannels) * sizeof(float));
    const float* const from = conv.weight.as<float>() + first * conv.width;
    columns(from, [&](int64_t k, int64_t c, const float& w) { weight_[k * kChannels + c] = w; });
    if (conv.bias) memcpy(bias_, conv.bias.as<float>() + first, bytes());
    if (!conv.initial_state) return;
    const float* const state = conv.initial_state.as<float>() + (b * conv.channels + first) * conv.width;
    columns(state, [&](int64_t k, int64_t c, const float& h) { initial_[k * kChannels + c] = h; });
  }

  const int64_t b, first, count, end;

  const float* weight() const { return weight_; }
  const float* bias() const { return bias_; }
  const float* zeros() const { return zeros_; }
  float* extra() const { return extra_; }
  size_t bytes() const { return static_cast<size_t>(count) * sizeof(float); }

  /// Calls body(k, c, element) for what is (channels, W) in memory.
  template <typename T, typename Body>
  void columns(T* matrix, const Body& body) const {
    for (int64_t c = 0; c < count; c++) {
      for (int64_t k = 0; k < conv_.width; k++) body(k, c, matrix[c * conv_.width + k]);
    }
  }

  /// Where the sequence of token t begins.
  int64_t start_of(int64_t t) const {
    if (!conv_.seq_idx) return 0;
    while (t > 0 && !starts_sequence(conv_.seq_idx, b, conv_.length, t)) t--;
    return t < 0 ? 0 : t;
  }

  /// The W inputs up to position t as a sequence that begins at `start` sees them: before position 0 the initial state,
  /// whose column W - 1 is position -1, and otherwise zeros.
  Taps taps(int64_t t, int64_t start) const {
    const int64_t from = t - conv_.width + 1;
    if (from >= start) return {conv_.x.row(b * conv_.length + from, first), conv_.x.pitch};
    for (int64_t k = 0; k < conv_.width; k++) {
      const int64_t position = from + k;
      const float* input = zeros_;
      if (position >= start) {
        input = conv_.x.row(b * conv_.length + position, first);
      } else if (start == 0) {
        input = initial_ + (conv_.width + position) * kChannels;
      }
      memcpy(inputs_ + k * kChannels, input, bytes());
    }
    return {inputs_, kChannels};
  }

 private:
  const Conv& conv_;
  float *weight_, *initial_, *inputs_, *zeros_, *bias_, *extra_;
};

/// bias + sum_k w_k x_{t-W+1+k} for a vector of channels; W is 0 where only `width` knows it.
template <int W, typename Lanes>
inline ALWAYS_INLINE Vec convolve(const Lanes& lanes, const ConvBlock& block, Taps taps, int64_t width, int64_t c) {
  Vec s = load(block.bias() + c);
  for (int64_t k = 0; k < (W > 0 ? W : width); k++) s += load(block.weight() + k * kChannels + c) * lanes.load(taps.data + k * taps.step + c);
  return s;
}

template <int W>
void forward(const Conv& conv, const ConvBlock& block, const ConvRows& y, bool activate) {
  const int64_t first = block.b * conv.length;
  int64_t start = 0;
  for (int64_t t = 0; t < block.end; t++) {
    if (starts_sequence(conv.seq_idx, block.b, conv.length, t)) start = t;
    const Taps taps = block.taps(t, start);
    float* const to = y.row(first + t, block.first);
    each_vector(block.count, [&](auto lanes, int64_t c, int) ALWAYS_INLINE {
      const Vec s = convolve<W>(lanes, block, taps, conv.width, c);
      lanes.store(to + c, activate ? silu(s) : s);
    });
  }
  for (int64_t t = block.end; t < conv.length; t++) memset(y.row(first + t, block.first), 0, block.bytes());
}

/// One token of every row: the inputs before it are the state, which moves on by one.
template <int W>
void step(const Conv& conv, const ConvRows& y, const View& final_state, bool activate) {
  const int64_t width = W > 0 ? W : conv.width;
  parallel_for(conv.batch * conv.blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; piece++) {
      const int64_t b = piece / conv.blocks, first = piece % conv.blocks * kChannels;
      const int64_t last = std::min(conv.channels, first + kChannels);
      float* const out = y.row(b, 0);
      for (int64_t c = first; c < last; c++) {
        const int64_t at = (b * conv.channels + c) * width;
        const float* const weight = conv.weight.as<float>() + c * width;
        const float* const before = conv.initial_state ? conv.initial_state.as<float>() + at : nullptr;
        float* const inputs = final_state.as<float>() + at;
        float s = conv.bias ? conv.bias.as<float>()[c] : 0;
        for (int64_t k = 0; k < width; k++) {
          inputs[k] = k == width - 1 ? *conv.x.row(b, c) : before == nullptr ? 0 : before[k + 1];
          s += weight[k] * inputs[k];
        }
        out[c] = s;
      }
      if (!activate) continue;
      each_vector(last - first, [&](auto lanes, int64_t c, int) {
        lanes.store(out + first + c, silu(lanes.load(out + first + c)));
      });
    }
  });
}

/// What the backward pass of a block adds to, rows of kChannels: the gradients of the weights and the bias, and those of
/// the inputs at positions p .. p + W - 1, position q in row q mod W. Going back in time, the oldest of them is complete
/// once its own token is done.
struct Sums {
  float *dweight, *window, *dbias;
};

template <int W>
void backward(const Conv& conv, const ConvBlock& block, const ConvRows& dy, const ConvRows& dx, bool activate,
              const Sums& sums) {
  const int64_t first = block.b * conv.length, width = W > 0 ? W : conv.width;
  const Vec one = splat(1);
  int64_t start = conv.length;
  for (int64_t t = block.end - 1; t >= 0; t--) {
    if (t < start) start = block.start_of(t);
    const Taps taps = block.taps(t, start);
    const float* const from = dy.data == nullptr ? block.zeros() : dy.row(first + t, block.first);
    float* const to = dx.row(first + t, block.first);
    const int64_t skipped = start > 0 && start > t - width + 1 ? start - (t - width + 1) : 0;
    const int64_t oldest = (t + 1) % width;
    each_vector(block.count, [&](auto lanes, int64_t c, int) ALWAYS_INLINE {
      Vec ds = lanes.load(from + c);
      if (activate) {
        const Vec s = convolve<W>(lanes, block, taps, width, c), gate = sigmoid(s);
        ds *= gate * (one + s * (one - gate));
      }
      store(sums.dbias + c, load(sums.dbias + c) + ds);
      for (int64_t k = 0; k < width; k++) {
        if (k < skipped) continue;
        float* const dw = sums.dweight + k * kChannels + c;
        float* const window = sums.window + (oldest + k < width ? oldest + k : oldest + k - width) * kChannels + c;
        store(dw, load(dw) + ds * lanes.load(taps.data + k * taps.step + c));
        const Vec gradient = load(window) + load(block.weight() + k * kChannels + c) * ds;
        if (k < width - 1) {
          store(window, gradient);
        } else {
          // Position t is complete; its row becomes that of position t - W.
          if (to != nullptr) lanes.store(to + c, gradient);
          store(window, Vec{});
        }
      }
    });
  }
  for (int64_t t = block.end; t < conv.length && dx.data != nullptr; t++) {
    memset(dx.row(first + t, block.first), 0, block.bytes());
  }
}

Error no_memory() { return fail("out of memory for a convolution of the mixer"); }

}  // namespace

/// y_t = act(bias + sum_k w_k x_{t-W+1+k}) for each channel by itself (arXiv 2312.00752, section 3.4).
Error causalConv1d(Args args) {
  const Conv conv(args);
  const ConvRows y(args.view());
  const View final_state = args.view();
  const bool activate = args.flag();
  if (conv.length == 1 && !conv.lengths) {
    (conv.width == 4 ? step<4> : step<0>)(conv, y, final_state, activate);
    return nullptr;
  }
  const auto run = conv.width == 4 ? forward<4> : conv.width == 3 ? forward<3> : conv.width == 2 ? forward<2> : forward<0>;
  std::atomic<bool> failed{false};
  parallel_for(conv.batch * conv.blocks, 1, [&](int64_t begin, int64_t end) {
    float* const memory = reinterpret_cast<float*>(scratch<Vec>(ConvBlock::rows(conv.width, 0) * kChannels / kLanes));
    if (memory == nullptr) {
      failed = true;
      return;
    }
    for (int64_t piece = begin; piece < end; piece++) {
      const ConvBlock block(conv, memory, piece);
      run(conv, block, y, activate);
      const Taps last = block.taps(block.end - 1, block.start_of(block.end - 1));
      float* const to = final_state.as<float>() + (block.b * conv.channels + block.first) * conv.width;
      block.columns(to, [&](int64_t k, int64_t c, float& h) { h = last.data[k * last.step + c]; });
    }
  });
  return failed ? no_memory() : nullptr;
}

/// With ds = dy act'(s): dx_t = sum_k w_k ds_{t+W-1-k} over the tokens of t's own sequence, dw_k = sum ds_t x_{t-W+1+k},
/// dbias = sum ds; what flows to positions before 0 is dinitialState, and dfinalState adds to the inputs that it holds.
Error causalConv1dBackward(Args args) {
  const Conv conv(args);
  const ConvRows dy(args.view());
  const View dfinal = args.view();
  const ConvRows dx(args.view());
  const View dweight = args.view(), dbias = args.view(), dinitial = args.view();
  const bool activate = args.flag();
  const int64_t width = conv.width;
  const auto run = width == 4 ? backward<4> : width == 3 ? backward<3> : width == 2 ? backward<2> : backward<0>;
  // For each row of the batch: (C, W) of dweight, then (C,) of dbias.
  const int64_t share = conv.channels * (width + 1);
  float* const partial = scratch<float>(conv.batch * share + 1);
  if (partial == nullptr) return no_memory();
  std::atomic<bool> failed{false};
  parallel_for(conv.batch * conv.blocks, 1, [&](int64_t begin, int64_t end) {
    const int64_t extra = 2 * width + 1;
    float* const memory = reinterpret_cast<float*>(scratch<Vec>(ConvBlock::rows(width, extra) * kChannels / kLanes));
    if (memory == nullptr) {
      failed = true;
      return;
    }
    for (int64_t piece = begin; piece < end; piece++) {
      const ConvBlock block(conv, memory, piece);
      const Sums sums{block.extra(), block.extra() + width * kChannels, block.extra() + 2 * width * kChannels};
      memset(block.extra(), 0, static_cast<size_t>(extra * kChannels) * sizeof(float));
      const int64_t at = block.b * conv.channels + block.first;
      const int64_t last_start = block.start_of(block.end - 1);
      if (dfinal) {
        block.columns(dfinal.as<float>() + at * width, [&](int64_t k, int64_t c, const float& d) {
          const int64_t position = block.end - width + k;
          if (position >= last_start || last_start == 0) sums.window[(position + width) % width * kChannels + c] = d;
        });
      }
      run(conv, block, dy, dx, activate, sums);
      if (dinitial) {
        block.columns(dinitial.as<float>() + at * width,
                      [&](int64_t k, int64_t c, float& d) { d = sums.window[k * kChannels + c]; });
      }
      float* const to = partial + block.b * share;
      block.columns(to + block.first * width,
                    [&](int64_t k, int64_t c, float& d) { d = sums.dweight[k * kChannels + c]; });
      memcpy(to + conv.channels * width + block.first, sums.dbias, block.bytes());
    }
  });
  if (failed) return no_memory();
  const auto total = [&](const View& to, int64_t offset) {
    for (int64_t i = 0; to && i < to.size(); i++) {
      double sum = 0;
      for (int64_t b = 0; b < conv.batch; b++) sum += static_cast<double>(partial[b * share + offset + i]);
      to.as<float>()[i] = static_cast<float>(sum);
    }
  };
  total(dweight, 0);
  total(dbias, conv.channels * width);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
