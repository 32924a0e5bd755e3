// RMSNorm (plain, gated before or after, in groups, after a residual sum) and LayerNorm, forward and backward, a row at a time: what is read
// twice is read from the cache the second time. Gradients of weights are summed over fixed shares of the rows, and these
// sums in order.
// Knows rows of floats. Knows no shape rule.

#include <cmath>

#include "../kernels.h"
#include "lanes.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// A view as rows of its last axis; absent where the view is.
struct Rows {
  float* data;
  int64_t pitch, width, count;

  explicit Rows(const View& view) : data(view.as<float>()), pitch(0), width(0), count(0) {
    if (!view) return;
    width = view.shape[view.rank - 1];
    count = view.span(0, view.rank - 1);
    pitch = view.pitch(1);
  }

  explicit operator bool() const { return data != nullptr; }

  float* row(int64_t i, int64_t column = 0) const { return data == nullptr ? nullptr : data + i * pitch + column; }

  void clear() const {
    for (int64_t i = 0; i < count; i++) memset(row(i), 0, static_cast<size_t>(width) * sizeof(float));
  }
};

void clear(const View& view) {
  if (view) memset(view.data, 0, static_cast<size_t>(view.size()) * sizeof(float));
}

int64_t rows_per_piece(int64_t width) { return 1 + kPieceElements / width; }

/// The rows of a backward pass in shares, each with `vectors` rows of memory of its own.
class Shares {
 public:
  Shares(int64_t rows, int64_t width, int64_t vectors) : rows_(rows), width_(width), vectors_(vectors) {
    const int64_t least = (rows + kMost - 1) / kMost;
    grain_ = rows_per_piece(width) > least ? rows_per_piece(width) : least;
    count_ = (rows + grain_ - 1) / grain_;
    memory_ = scratch<float>(count_ * vectors * width + 1);
  }

  explicit operator bool() const { return memory_ != nullptr; }

  float* vector(int64_t share, int64_t which) const { return memory_ + (share * vectors_ + which) * width_; }

  /// Calls body(share, begin, end) for each share of the rows.
  template <typename Body>
  void each(const Body& body) const {
    parallel_for(rows_, grain_, [&](int64_t begin, int64_t end) { body(begin / grain_, begin, end); });
  }

  /// to[i] = the sum over shares of their vector `which`, if there is anywhere to write it.
  void total(const View& to, int64_t which) const {
    if (!to) return;
    for (int64_t i = 0; i < width_; i++) {
      double sum = 0;
      for (int64_t share = 0; share < count_; share++) sum += static_cast<double>(vector(share, which)[i]);
      to.as<float>()[i] = static_cast<float>(sum);
    }
  }

 private:
  static constexpr int64_t kMost = 32;
  int64_t rows_, width_, vectors_, grain_, count_;
  float* memory_;
};

Error no_memory() { return fail("out of memory for partial sums"); }

/// Where z comes in: not at all, x silu(z) is normalised, or the result is multiplied by silu(z).
enum class Gate { none, before, after };

Gate gate_of(const View& z, bool norm_before_gate) {
  return !z ? Gate::none : norm_before_gate ? Gate::after : Gate::before;
}

/// (mean square + eps)^(-1/2)
float rstd_of(float squares, int64_t n, double eps) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(squares) / static_cast<double>(n) + eps));
}

/// One group: y = w v r, r = (mean(v^2) + eps)^(-1/2); returns r.
template <Gate gate>
float normalize(const float* x, const float* z, const float* w, float* y, int64_t n, double eps) {
  Chains squares(0);
  each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
    Vec v = lanes.load(x + i);
    if constexpr (gate == Gate::before) {
      v *= silu(lanes.load(z + i));
      lanes.store(y + i, v);
    }
    squares[chain] += v * v;
  });
  const float rstd = rstd_of(squares.sum(), n, eps);
  const Vec r = splat(rstd);
  const float* const from = gate == Gate::before ? y : x;
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
    Vec v = lanes.load(from + i) * r * lanes.load(w + i);
    if constexpr (gate == Gate::after) v *= silu(lanes.load(z + i));
    lanes.store(y + i, v);
  });
  return rstd;
}

/// What one group of the backward pass reads and writes.
struct GroupGradient {
  const float *x, *z, *w, *dy;
  float rstd;
  float *dx, *dz, *dw;
};

/**
 * With g = w dL/d(v r w): dv = r g - v r^3 mean(g v), dw += dL/d(v r w) v r, dz = upstream * (what is gated) * silu'(z).
 * The first loop leaves in dx and dz what the second would have to work out again.
 */
template <Gate gate>
void normalize_backward(const GroupGradient at, int64_t n) {
  const Vec r = splat(at.rstd), one = splat(1);
  Chains products(0);
  each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
    Vec v = lanes.load(at.x + i), d = lanes.load(at.dy + i);
    const Vec w = lanes.load(at.w + i);
    if constexpr (gate != Gate::none) {
      const Vec z = lanes.load(at.z + i), s = sigmoid(z);
      const Vec value = z * s, slope = s * (one + z * (one - s));
      if constexpr (gate == Gate::before) {
        lanes.store(at.dx + i, value);
        lanes.store(at.dz + i, v * slope);
        v *= value;
      } else {
        lanes.store(at.dz + i, d * w * v * r * slope);
        d *= value;
        lanes.store(at.dx + i, d);
      }
    }
    const Vec product = d * v;
    lanes.store(at.dw + i, lanes.load(at.dw + i) + product * r);
    products[chain] += w * product;
  });
  const Vec shared = splat(at.rstd * at.rstd * at.rstd * products.sum() / static_cast<float>(n));
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
    Vec v = lanes.load(at.x + i);
    const Vec g = r * lanes.load(at.w + i);
    if constexpr (gate == Gate::none) {
      lanes.store(at.dx + i, g * lanes.load(at.dy + i) - v * shared);
    } else if constexpr (gate == Gate::before) {
      const Vec value = lanes.load(at.dx + i);
      const Vec dv = g * lanes.load(at.dy + i) - v * value * shared;
      lanes.store(at.dx + i, dv * value);
      lanes.store(at.dz + i, dv * lanes.load(at.dz + i));
    } else {
      lanes.store(at.dx + i, g * lanes.load(at.dx + i) - v * shared);
    }
  });
}

}  // namespace

Error rmsNorm(Args args) {
  const View x_view = args.view(), weight = args.view(), z_view = args.view();
  const View y_view = args.view(), rstd_view = args.view();
  const double eps = args.number();
  const int64_t size = args.integer();
  const Gate gate = gate_of(z_view, args.flag());
  const auto run = gate == Gate::none     ? normalize<Gate::none>
                   : gate == Gate::before ? normalize<Gate::before>
                                          : normalize<Gate::after>;
  const Rows x(x_view), z(z_view), y(y_view);
  const float* const w = weight.as<float>();
  float* const rstd = rstd_view.as<float>();
  const int64_t groups = x.width / size;
  parallel_for(x.count, rows_per_piece(x.width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      for (int64_t group = 0; group < groups; group++) {
        const int64_t at = group * size;
        rstd[row * groups + group] = run(x.row(row, at), z.row(row, at), w + at, y.row(row, at), size, eps);
      }
    }
  });
  return nullptr;
}

Error rmsNormBackward(Args args) {
  const View x_view = args.view(), weight = args.view(), z_view = args.view(), rstd_view = args.view();
  const View dy_view = args.view(), dx_view = args.view(), dweight = args.view(), dz_view = args.view();
  args.number();
  const int64_t size = args.integer();
  const Gate gate = gate_of(z_view, args.flag());
  const auto run = gate == Gate::none     ? normalize_backward<Gate::none>
                   : gate == Gate::before ? normalize_backward<Gate::before>
                                          : normalize_backward<Gate::after>;
  const Rows x(x_view), z(z_view), dy(dy_view), dx(dx_view), dz(dz_view);
  if (!dy) {
    dx.clear();
    dz.clear();
    clear(dweight);
    return nullptr;
  }
  const float* const w = weight.as<float>();
  const float* const rstd = rstd_view.as<float>();
  const int64_t groups = x.width / size;
  const Shares shares(x.count, x.width, 3);
  if (!shares) return no_memory();
  shares.each([&](int64_t share, int64_t begin, int64_t end) {
    float* const dw = shares.vector(share, 0);
    memset(dw, 0, static_cast<size_t>(x.width) * sizeof(float));
    for (int64_t row = begin; row < end; row++) {
      float* const to = dx ? dx.row(row) : shares.vector(share, 1);
      float* const to_gate = dz ? dz.row(row) : shares.vector(share, 2);
      for (int64_t group = 0; group < groups; group++) {
        const int64_t at = group * size;
        const float r = rstd[row * groups + group];
        run({x.row(row, at), z.row(row, at), w + at, dy.row(row, at), r, to + at, to_gate + at, dw + at}, size);
      }
    }
  });
  shares.total(dweight, 0);
  return nullptr;
}

/// sum = x + y and its norm, w sum r, r = (mean(sum^2) + eps)^(-1/2). Without y the sum is x.
Error addRmsNorm(Args args) {
  const View x_view = args.view(), y_view = args.view(), weight = args.view();
  const View sum_view = args.view(), normed_view = args.view(), rstd_view = args.view();
  const double eps = args.number();
  const Rows x(x_view), y(y_view), sum(sum_view), normed(normed_view);
  const float* const w = weight.as<float>();
  parallel_for(x.count, rows_per_piece(x.width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* const from = y ? sum.row(row) : x.row(row);
      if (y) {
        const float *const left = x.row(row), *const right = y.row(row);
        float* const to = sum.row(row);
        Chains squares(0);
        each_vector(x.width, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
          const Vec v = lanes.load(left + i) + lanes.load(right + i);
          lanes.store(to + i, v);
          squares[chain] += v * v;
        });
        rstd_view.as<float>()[row] = rstd_of(squares.sum(), x.width, eps);
        const Vec r = splat(rstd_view.as<float>()[row]);
        float* const out = normed.row(row);
        each_vector(x.width, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
          lanes.store(out + i, lanes.load(from + i) * r * lanes.load(w + i));
        });
      } else {
        rstd_view.as<float>()[row] = normalize<Gate::none>(from, nullptr, w, normed.row(row), x.width, eps);
      }
    }
  });
  return nullptr;
}

/// With g = w dnormed: d = dsum + r g - sum r^3 mean(g sum), to dx and dy alike; dw = sum of dnormed sum r.
Error addRmsNormBackward(Args args) {
  const View sum_view = args.view(), weight = args.view(), rstd_view = args.view();
  const View dsum_view = args.view(), dnormed_view = args.view();
  const View dx_view = args.view(), dy_view = args.view(), dweight = args.view();
  const Rows sum(sum_view), dsum(dsum_view), dnormed(dnormed_view), dx(dx_view), dy(dy_view);
  const float* const w = weight.as<float>();
  const int64_t n = sum.width;
  const Shares shares(sum.count, n, 1);
  if (!shares) return no_memory();
  shares.each([&](int64_t share, int64_t begin, int64_t end) {
    float* const dw = shares.vector(share, 0);
    memset(dw, 0, static_cast<size_t>(n) * sizeof(float));
    for (int64_t row = begin; row < end; row++) {
      const float *const s = sum.row(row), *const ds = dsum.row(row), *const dn = dnormed.row(row);
      const float r = rstd_view.as<float>()[row];
      Chains products(0);
      if (dn != nullptr) {
        each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
          const Vec product = lanes.load(dn + i) * lanes.load(s + i);
          lanes.store(dw + i, lanes.load(dw + i) + product * splat(r));
          products[chain] += lanes.load(w + i) * product;
        });
      }
      const Vec shared = splat(r * r * r * products.sum() / static_cast<float>(n));
      float *const to = dx.row(row), *const also = dy.row(row);
      if (to == nullptr && also == nullptr) continue;
      each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
        Vec d = ds == nullptr ? Vec{} : lanes.load(ds + i);
        if (dn != nullptr) d += splat(r) * lanes.load(w + i) * lanes.load(dn + i) - lanes.load(s + i) * shared;
        if (to != nullptr) lanes.store(to + i, d);
        if (also != nullptr) lanes.store(also + i, d);
      });
    }
  });
  shares.total(dweight, 0);
  return nullptr;
}

/// y = w (x - mean) r + bias, r = (var + eps)^(-1/2), with the biased variance (arXiv 1607.06450).
Error layerNorm(Args args) {
  const View x_view = args.view(), weight = args.view(), bias = args.view();
  const View y_view = args.view(), mean_view = args.view(), rstd_view = args.view();
  const double eps = args.number();
  const Rows x_rows(x_view), y_rows(y_view);
  const float* const w = weight.as<float>();
  const float* const b = bias.as<float>();
  const int64_t n = x_rows.width;
  parallel_for(x_rows.count, rows_per_piece(n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* const x = x_rows.row(row);
      float* const y = y_rows.row(row);
      const float count = static_cast<float>(n);
      Chains sums(0), differences(0), squares(0);
      each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE { sums[chain] += lanes.load(x + i); });
      const Vec centre = splat(sums.sum() / count);
      each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
        const Vec d = lanes.keep(lanes.load(x + i) - centre, Vec{});
        differences[chain] += d;
        squares[chain] += d * d;
      });
      // What the centre, a rounded number, is off by: far from 0 that is much beside the deviation.
      const float rest = differences.sum() / count;
      const double variance = static_cast<double>(squares.sum()) / static_cast<double>(n) - static_cast<double>(rest) * rest;
      const float rstd = static_cast<float>(1 / std::sqrt(variance + eps));
      const Vec off = splat(rest), r = splat(rstd);
      each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
        const Vec v = ((lanes.load(x + i) - centre) - off) * r * lanes.load(w + i);
        lanes.store(y + i, b == nullptr ? v : v + lanes.load(b + i));
      });
      mean_view.as<float>()[row] = centre[0] + rest;
      rstd_view.as<float>()[row] = rstd;
    }
  });
  return nullptr;
}

/// With v = (x - mean) r and g = w dy: dx = r (g - mean(g) - v mean(g v)), dw = sum dy v, dbias = sum dy.
Error layerNormBackward(Args args) {
  const View x_view = args.view(), weight = args.view();
  args.view();
  const View mean_view = args.view(), rstd_view = args.view(), dy_view = args.view();
  const View dx_view = args.view(), dweight = args.view(), dbias = args.view();
  const Rows x_rows(x_view), dy_rows(dy_view), dx_rows(dx_view);
  if (!dy_rows) {
    dx_rows.clear();
    clear(dweight);
    clear(dbias);
    return nullptr;
  }
  const float* const w = weight.as<float>();
  const int64_t n = x_rows.width;
  const Shares shares(x_rows.count, n, 2);
  if (!shares) return no_memory();
  shares.each([&](int64_t share, int64_t begin, int64_t end) {
    float* const dw = shares.vector(share, 0);
    float* const db = shares.vector(share, 1);
    memset(dw, 0, 2 * static_cast<size_t>(n) * sizeof(float));
    for (int64_t row = begin; row < end; row++) {
      const float* const x = x_rows.row(row);
      const float* const dy = dy_rows.row(row);
      const Vec centre = splat(mean_view.as<float>()[row]), r = splat(rstd_view.as<float>()[row]);
      Chains sums(0), products(0);
      each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
        const Vec v = (lanes.load(x + i) - centre) * r, d = lanes.load(dy + i), g = d * lanes.load(w + i);
        lanes.store(dw + i, lanes.load(dw + i) + d * v);
        lanes.store(db + i, lanes.load(db + i) + d);
        sums[chain] += g;
        products[chain] += g * v;
      });
      if (!dx_rows) continue;
      float* const dx = dx_rows.row(row);
      const Vec mean_g = splat(sums.sum() / static_cast<float>(n));
      const Vec mean_gv = splat(products.sum() / static_cast<float>(n));
      each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
        const Vec v = (lanes.load(x + i) - centre) * r, g = lanes.load(dy + i) * lanes.load(w + i);
        lanes.store(dx + i, r * (g - mean_g - v * mean_gv));
      });
    }
  });
  shares.total(dweight, 0);
  shares.total(dbias, 1);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
