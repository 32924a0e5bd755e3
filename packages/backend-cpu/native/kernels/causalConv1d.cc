// The causal depthwise convolution of the mixers: a block of channels, some tokens at a time, through one sequence of a row
// after another.
// Knows rows of floats. Knows no gradient.

#include "causalConv1d.h"

#include <algorithm>
#include <atomic>

#include "../pool.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

template <int T, typename Width>
void forward(const ConvBlock& block, Width width, const Input& x, const Output& y, bool activate) {
  each_vector(block.count, [&](auto lanes, int64_t c, int) ALWAYS_INLINE {
    Vec s[T];
    convolve(lanes, block, x, width, c, s);
    for (int i = 0; i < T; i++) __builtin_prefetch(y.row(T + i) + c, 1, 2);
    for (int i = 0; i < T; i++) lanes.store(y.row(i) + c, activate ? silu(s[i]) : s[i]);
  });
}

/// One token of every row: the inputs before it are the state, which moves on by one.
template <typename Width>
void step(const Conv& conv, Width width, const ConvRows& y, const View& final_state, bool activate) {
  parallel_for(conv.batch * conv.blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; piece++) {
      const int64_t b = piece / conv.blocks, first = piece % conv.blocks * conv.block;
      const int64_t last = std::min(conv.channels, first + conv.block);
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

}  // namespace

/// y_t = act(bias + sum_k w_k x_{t-W+1+k}) for each channel by itself (arXiv 2312.00752, section 3.4).
Error causalConv1d(Args args) {
  const Conv conv(args);
  const ConvRows y(args.view());
  const View final_state = args.view();
  const bool activate = args.flag();
  if (conv.length == 1 && !conv.lengths) {
    with_width(conv.width, [&](auto width) { step(conv, width, y, final_state, activate); });
    return nullptr;
  }
  std::atomic<bool> failed{false};
  parallel_for(conv.batch * conv.blocks, 1, [&](int64_t begin, int64_t end) {
    float* const memory = reinterpret_cast<float*>(scratch<Vec>(ConvBlock::rows(conv.width, 0) * kRow / kLanes));
    if (memory == nullptr) {
      failed = true;
      return;
    }
    for (int64_t piece = begin; piece < end; piece++) {
      const ConvBlock block(conv, memory, piece);
      const int64_t row = block.b * conv.length;
      with_width(conv.width, [&](auto width) {
        block.each_sequence([&](const Sequence& sequence) {
          each_tokens(sequence, width, [&](auto tokens, int64_t t) {
            const Output to{y.row(row + t, block.first), y.pitch};
            forward<tokens>(block, width, block.inputs(t, sequence.start), to, activate);
          });
        });
      });
      for (int64_t t = block.end; t < conv.length; t++) memset(y.row(row + t, block.first), 0, block.bytes());
      const Input last = block.inputs(block.end - 1, block.last_start());
      float* const to = final_state.as<float>() + (block.b * conv.channels + block.first) * conv.width;
      block.columns(to, [&](int64_t k, int64_t c, float& h) { h = last.row(k)[c]; });
    }
  });
  return failed ? no_memory_for_convolution() : nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
