// The gradient of the causal convolution: forward in time, so that the gradient of an input is complete W - 1 tokens later.
// Sums over batches are added in order.
// Knows rows of floats. Knows no tape.

#include <atomic>

#include "../pool.h"
#include "causalConv1d.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// What a block adds to, and ds of the tokens at hand and of the W - 1 before them: rows of kRow.
struct Sums {
  float *dweight, *dbias, *ds;
};

/// T tokens: adds to the sums and writes dx of the T positions that are W - 1 back. Two loops, because the machine overlaps
/// what is short better.
template <int T, typename Width>
void backward(const ConvBlock& block, Width width, const Input& x, const Input& dy, const Output& dx, bool activate,
              const Sums& sums) {
  const Vec one = splat(1);
  float* const now = sums.ds + (width - 1) * kRow;
  each_vector(block.count, [&](auto lanes, int64_t c, int) ALWAYS_INLINE {
    Vec s[T];
    if (activate) convolve(lanes, block, x, width, c, s);
    for (int i = 0; i < T; i++) __builtin_prefetch(dy.row(T + i) + c, 0, 2);
    for (int i = 0; i < T; i++) {
      Vec ds = lanes.load(dy.row(i) + c);
      if (activate) {
        const Vec gate = sigmoid(s[i]);
        ds *= gate * (one + s[i] * (one - gate));
      }
      store(now + i * kRow + c, ds);
    }
  });
  each_vector(block.count, [&](auto lanes, int64_t c, int) ALWAYS_INLINE {
    Vec ds[T], out[T] = {}, dbias = load(sums.dbias + c);
    for (int i = 0; i < T; i++) {
      ds[i] = load(now + i * kRow + c);
      dbias += ds[i];
    }
    store(sums.dbias + c, dbias);
    for (int64_t k = 0; k < width; k++) {
      const Vec w = load(block.weight(k) + c);
      Vec dw = load(sums.dweight + k * kRow + c);
      for (int i = 0; i < T; i++) {
        dw += ds[i] * lanes.load(x.row(i + k) + c);
        out[i] += w * load(now + (i - k) * kRow + c);
      }
      store(sums.dweight + k * kRow + c, dw);
    }
    for (int i = 0; i < T; i++) {
      lanes.store(dx.row(i) + c, out[i]);
      __builtin_prefetch(dx.row(T + i) + c, 1, 2);
    }
    for (int64_t j = 0; j < width - 1; j++) store(sums.ds + j * kRow + c, load(sums.ds + (j + T) * kRow + c));
  });
}

}  // namespace

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
  // For each row of the batch: (C, W) of dweight, then (C,) of dbias.
  const int64_t share = conv.channels * (width + 1);
  float* const partial = scratch<float>(conv.batch * share + 1);
  if (partial == nullptr) return no_memory_for_convolution();
  std::atomic<bool> failed{false};
  parallel_for(conv.batch * conv.blocks, 1, [&](int64_t begin, int64_t end) {
    // dweight, dinitialState, dbias, what nobody wants, and ds.
    const int64_t extra = 3 * width + 2 * kTokens;
    float* const memory = reinterpret_cast<float*>(scratch<Vec>(ConvBlock::rows(width, extra) * kRow / kLanes));
    if (memory == nullptr) {
      failed = true;
      return;
    }
    for (int64_t piece = begin; piece < end; piece++) {
      const ConvBlock block(conv, memory, piece);
      float* const dweights = block.extra();
      float* const before = dweights + width * kRow;
      float* const dbiases = before + width * kRow;
      float* const unwanted = dbiases + kRow;
      const Sums sums{dweights, dbiases, unwanted + kTokens * kRow};
      memset(block.extra(), 0, static_cast<size_t>(extra * kRow) * sizeof(float));
      const int64_t row = block.b * conv.length, last_start = block.last_start();
      const Input zeros = block.zeros();
      // Where the gradients of positions from p on go, as a sequence that begins at `start` sees them.
      const auto to = [&](int64_t p, int64_t start) -> Output {
        if (p >= start && dx.data != nullptr) return {dx.row(row + p, block.first), dx.pitch};
        if (p < start && start == 0) return {before + (width + p) * kRow, kRow};
        return {unwanted, kRow};
      };
      with_width(width, [&](auto known_width) {
        block.each_sequence([&](const Sequence& sequence) {
          const int64_t start = sequence.start;
          memset(sums.ds, 0, static_cast<size_t>((width - 1) * kRow) * sizeof(float));
          each_tokens(sequence, width, [&](auto tokens, int64_t t) {
            const Input from = dy.data == nullptr ? zeros : Input{dy.row(row + t, block.first), dy.pitch};
            backward<tokens>(block, known_width, block.inputs(t, start), from, to(t - width + 1, start), activate, sums);
          });
          // As many zeros follow it, until the last gradient is complete.
          for (int64_t t = sequence.end; t < sequence.end + width - 1; t++) {
            backward<1>(block, known_width, zeros, zeros, to(t - width + 1, start), activate, sums);
          }
        });
      });
      const int64_t at = block.b * conv.channels + block.first;
      if (dfinal) {
        block.columns(dfinal.as<float>() + at * width, [&](int64_t k, int64_t c, const float& d) {
          to(block.end - width + k, last_start).data[c] += d;
        });
      }
      if (dinitial) {
        block.columns(dinitial.as<float>() + at * width,
                      [&](int64_t k, int64_t c, float& d) { d = before[k * kRow + c]; });
      }
      float* const total = partial + block.b * share;
      block.columns(total + block.first * width,
                    [&](int64_t k, int64_t c, float& d) { d = dweights[k * kRow + c]; });
      memcpy(total + conv.channels * width + block.first, dbiases, block.bytes());
      for (int64_t t = block.end; t < conv.length && dx.data != nullptr; t++) {
        memset(dx.row(row + t, block.first), 0, block.bytes());
      }
    }
  });
  if (failed) return no_memory_for_convolution();
  const auto add_up = [&](const View& to, int64_t offset) {
    for (int64_t i = 0; to && i < to.size(); i++) {
      double sum = 0;
      for (int64_t b = 0; b < conv.batch; b++) sum += static_cast<double>(partial[b * share + offset + i]);
      to.as<float>()[i] = static_cast<float>(sum);
    }
  };
  add_up(dweight, 0);
  add_up(dbias, conv.channels * width);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
