// The causal depthwise convolution with SiLU, forward and backward, in one pass over time: y_t = act(bias + w . window_t),
// where the window holds the last W inputs, oldest first. A unit of work is one row's vector of channels, whose window
// stays in registers; backward walks the gradient of the window from the end.
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

constexpr int kMaxWidth = 16;

struct Inputs {
  View x, weight, bias, initialState, seqIdx, lengths;
  int64_t batch, length, channels;
  int width;

  explicit Inputs(Args& args)
      : x(args.view()),
        weight(args.view()),
        bias(args.view()),
        initialState(args.view()),
        seqIdx(args.view()),
        lengths(args.view()),
        batch(x.shape[0]),
        length(x.shape[1]),
        channels(x.shape[2]),
        width(static_cast<int>(weight.shape[1])) {}

  int64_t blocks() const { return (channels + kLanes - 1) / kLanes; }
};

/// The channels [first, first + count) of one row.
struct Block {
  int64_t b, first, count;

  Block(const Inputs& in, int64_t unit)
      : b(unit / in.blocks()), first(unit % in.blocks() * kLanes), count(std::min<int64_t>(in.channels - first, kLanes)) {}

  Vec read(const float* from) const { return count == kLanes ? load(from) : load_part(from, count); }

  void write(float* to, Vec v) const {
    if (count == kLanes) {
      store(to, v);
    } else {
      store_part(to, v, count);
    }
  }

  float* row(const View& view, int64_t length, int64_t t) const {
    return view.as<float>() + (b * length + t) * view.pitch(1) + first;
  }

  /// Columns of a (channels, width) matrix, one vector each; zeros where there is none.
  void columns(const float* matrix, int width, Vec* to) const {
    for (int k = 0; k < width; k++) {
      to[k] = Vec{};
      if (matrix == nullptr) continue;
      for (int64_t c = 0; c < count; c++) to[k][c] = matrix[(first + c) * width + k];
    }
  }

  void write_columns(const Vec* from, int width, float* matrix) const {
    for (int k = 0; k < width; k++) {
      for (int64_t c = 0; c < count; c++) matrix[(first + c) * width + k] = from[k][c];
    }
  }
};

float* state_of(const View& state, const Inputs& in, int64_t b) {
  return state ? state.as<float>() + b * in.channels * in.width : nullptr;
}

/// Moves the window on by one token.
inline void push(Vec* window, int width, Vec x) {
  for (int k = 0; k + 1 < width; k++) window[k] = window[k + 1];
  window[width - 1] = x;
}

inline Vec response(const Vec* weight, const Vec* window, int width, Vec bias) {
  Vec s = bias;
  for (int k = 0; k < width; k++) s += weight[k] * window[k];
  return s;
}

inline void reset(Vec* window, int width) {
  for (int k = 0; k < width; k++) window[k] = Vec{};
}

Error too_wide(int width) { return fail("a width of %d; at most %d is supported", width, kMaxWidth); }

}  // namespace

Error causalConv1d(Args args) {
  const Inputs in(args);
  const View y = args.view(), final_state = args.view();
  const bool with_silu = args.flag();
  const int width = in.width;
  if (width > kMaxWidth) return too_wide(width);
  parallel_for(in.batch * in.blocks(), 1, [&](int64_t unit, int64_t) {
    const Block block(in, unit);
    Vec weight[kMaxWidth], window[kMaxWidth];
    block.columns(in.weight.as<float>(), width, weight);
    block.columns(state_of(in.initialState, in, block.b), width, window);
    const Vec bias = in.bias ? block.read(in.bias.as<float>() + block.first) : Vec{};
    const int64_t tokens = row_length(in.lengths, block.b, in.length);
    for (int64_t t = 0; t < tokens; t++) {
      if (starts_sequence(in.seqIdx, block.b, in.length, t)) reset(window, width);
      push(window, width, block.read(block.row(in.x, in.length, t)));
      const Vec s = response(weight, window, width, bias);
      block.write(block.row(y, in.length, t), with_silu ? silu(s) : s);
    }
    for (int64_t t = tokens; t < in.length; t++) block.write(block.row(y, in.length, t), Vec{});
    block.write_columns(window, width, state_of(final_state, in, block.b));
  });
  return nullptr;
}

Error causalConv1dBackward(Args args) {
  const Inputs in(args);
  const View dy = args.view(), dfinal = args.view();
  const View dx = args.view(), dweight = args.view(), dbias = args.view(), dinitial = args.view();
  const bool with_silu = args.flag();
  const int width = in.width;
  if (width > kMaxWidth) return too_wide(width);
  struct PartialSum {
    float x;
  };
  struct Response {
    float x;
  };
  // Per row: the gradients of the weight (channels, width), then of the bias.
  const int64_t stride = in.channels * (width + 1);
  float* const partials = reinterpret_cast<float*>(scratch<PartialSum>(in.batch * stride + 1));
  if (partials == nullptr) return fail("out of memory for the gradient of the weight");
  std::atomic<bool> failed{false};
  parallel_for(in.batch * in.blocks(), 1, [&](int64_t unit, int64_t) {
    const Block block(in, unit);
    float* const ds = reinterpret_cast<float*>(scratch<Response>(in.length * kLanes + 1));
    if (ds == nullptr) {
      failed = true;
      return;
    }
    Vec weight[kMaxWidth], window[kMaxWidth], sums[kMaxWidth], total{};
    block.columns(in.weight.as<float>(), width, weight);
    block.columns(state_of(in.initialState, in, block.b), width, window);
    reset(sums, width);
    const Vec bias = in.bias ? block.read(in.bias.as<float>() + block.first) : Vec{};
    const int64_t tokens = row_length(in.lengths, block.b, in.length);
    for (int64_t t = 0; t < tokens; t++) {
      if (starts_sequence(in.seqIdx, block.b, in.length, t)) reset(window, width);
      push(window, width, block.read(block.row(in.x, in.length, t)));
      Vec gradient = dy ? block.read(block.row(dy, in.length, t)) : Vec{};
      if (with_silu) {
        const Vec s = response(weight, window, width, bias);
        const Vec sigma = sigmoid(s);
        gradient *= sigma * (splat(1.0f) + s * (splat(1.0f) - sigma));
      }
      store(ds + t * kLanes, gradient);
      for (int k = 0; k < width; k++) sums[k] += gradient * window[k];
      total += gradient;
    }
    float* const partial = partials + block.b * stride;
    block.write_columns(sums, width, partial);
    block.write(partial + in.channels * width + block.first, total);

    // The gradient of the window after token t, from the last one back.
    block.columns(state_of(dfinal, in, block.b), width, window);
    for (int64_t t = tokens - 1; t >= 0; t--) {
      const Vec gradient = load(ds + t * kLanes);
      for (int k = 0; k < width; k++) window[k] += weight[k] * gradient;
      if (dx) block.write(block.row(dx, in.length, t), window[width - 1]);
      for (int k = width - 1; k > 0; k--) window[k] = window[k - 1];
      window[0] = Vec{};
      if (starts_sequence(in.seqIdx, block.b, in.length, t)) reset(window, width);
    }
    if (dx) {
      for (int64_t t = tokens; t < in.length; t++) block.write(block.row(dx, in.length, t), Vec{});
    }
    if (dinitial) block.write_columns(window, width, state_of(dinitial, in, block.b));
  });
  if (failed) return fail("out of memory for a row of %lld tokens", static_cast<long long>(in.length));
  const auto sum_rows = [&](int64_t at) {
    double total = 0;
    for (int64_t b = 0; b < in.batch; b++) total += partials[b * stride + at];
    return static_cast<float>(total);
  };
  for (int64_t i = 0; dweight && i < in.channels * width; i++) dweight.as<float>()[i] = sum_rows(i);
  for (int64_t c = 0; dbias && c < in.channels; c++) dbias.as<float>()[c] = sum_rows(in.channels * width + c);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
