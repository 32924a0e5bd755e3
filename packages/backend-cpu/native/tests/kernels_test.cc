// Kernels over rows and lists against plain loops in doubles: pitches, lengths that fill no vector, absent arguments, and
// the same bits with 1, 2 and 3 threads. scripts/test-native.mjs builds and runs it, plain and with sanitizers.
// Knows the kernels of indexing, random, norms, softmaxCrossEntropy, adamw and matmul by their packed arguments alone.

#include <algorithm>
#include <limits>

#include "half.h"
#include "testing.h"

namespace diffmamba {
namespace testing {
namespace {

using namespace DIFFMAMBA_ISA;
using Doubles = std::vector<double>;

const View absent{};
const float kNaN = std::numeric_limits<float>::quiet_NaN();

template <typename T>
void test_gather(int64_t rows, int64_t columns, int64_t count) {
  title = "gather";
  Array<T> table(rows * columns, 0, 100), y(count * columns);
  Array<int32_t> at(count, 0, static_cast<double>(rows));
  Doubles expected;
  for (int64_t r = 0; r < count; r++) {
    for (int64_t c = 0; c < columns; c++) expected.push_back(static_cast<double>(table[at[r] * columns + c]));
  }
  const Packed packed = Packed() << table.view({rows, columns}) << at.view() << y.view({count, columns});
  run(gather, packed, {y});
  close("rows", y, expected, 0);
  at[count - 1] = static_cast<int32_t>(rows);
  char words[200];
  snprintf(words, sizeof words, "index %lld at position %lld is outside the table's %lld rows", static_cast<long long>(rows),
           static_cast<long long>(count - 1), static_cast<long long>(rows));
  fails(gather, packed, words);
  at[0] = -1;
  fails(gather, packed, "index -1 at position 0 is outside");
}

void test_scatter_add(int64_t rows, int64_t columns, int64_t count) {
  title = "scatterAdd";
  Array<float> src(count * columns, -1, 1), y(rows * columns);
  Array<int32_t> at(count, 0, static_cast<double>(rows));
  Doubles expected(static_cast<size_t>(rows * columns));
  for (int64_t r = 0; r < count; r++) {
    for (int64_t c = 0; c < columns; c++) {
      expected[static_cast<size_t>(at[r] * columns + c)] += static_cast<double>(src[r * columns + c]);
    }
  }
  const Packed packed = Packed() << at.view() << src.view({count, columns}) << y.view({rows, columns});
  run(scatterAdd, packed, {y});
  close("sums", y, expected, 1e-6);
  if (count == 0) return;
  at[0] = -7;
  fails(scatterAdd, packed, "index -7 at position 0 is outside the table's");
}

void test_random() {
  title = "random";
  // The generator's published test vector (Random123, kat_vectors): counter and key zero.
  const uint32_t known[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (const int64_t size : {4, 7, 1000, 100003}) {
    Array<int32_t> words(size), step(1);
    Array<uint8_t> mask(size);
    step[0] = 0;
    run(random, Packed() << words.view() << step.view({}) << 0 << 0 << 0 << 0, {words});
    for (int i = 0; i < 4; i++) check(static_cast<uint32_t>(words[i]) == known[i], "word %d is %08x", i, words[i]);
    const double threshold = 3e9;
    run(random, Packed() << mask.view() << step.view({}) << 0 << 0 << 1 << threshold, {mask});
    for (int64_t i = 0; i < size; i++) {
      check(mask[i] == (static_cast<double>(static_cast<uint32_t>(words[i])) >= threshold), "mask %lld", static_cast<long long>(i));
    }
    // A word is found by its place, and another step or key is another stream.
    Array<int32_t> part(4), other(size);
    run(random, Packed() << part.view() << step.view({}) << 0 << 0 << 0 << 0, {part});
    check(memcmp(part.data(), words.data(), part.bytes()) == 0, "depends on the size");
    step[0] = -1;
    run(random, Packed() << other.view() << step.view({}) << 0 << 0 << 0 << 0, {other});
    check(memcmp(other.data(), words.data(), other.bytes()) != 0, "does not depend on the step");
    step[0] = 0;
    run(random, Packed() << other.view() << step.view({}) << 4294967295.0 << 1 << 0 << 0, {other});
    check(memcmp(other.data(), words.data(), other.bytes()) != 0, "does not depend on the key");
  }
}

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

void test_rms_norm(int64_t rows, int64_t groups, int64_t size, int gate) {
  title = "rmsNorm " + std::to_string(rows) + "x" + std::to_string(groups) + "x" + std::to_string(size) + " gate " + std::to_string(gate);
  const int64_t n = groups * size, pitch = n + 5;
  const double eps = 1e-5;
  Array<float> x(rows * pitch, -2, 2), z(rows * pitch, -4, 4), w(n, -1, 1), dy(rows * n, -1, 1);
  Array<float> y(rows * n), rstd(rows * groups), dx(rows * n), dz(rows * n), dw(n);
  Doubles want_y, want_rstd, want_dx, want_dz(static_cast<size_t>(rows * n)), want_dw(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t group = 0; group < groups; group++) {
      Doubles v, upstream;
      double squares = 0, products = 0;
      const auto z_at = [&](int64_t i) { return static_cast<double>(z[row * pitch + group * size + i]); };
      const auto silu_at = [&](int64_t i) { return gate == 0 ? 1 : z_at(i) * sigmoid_of(z_at(i)); };
      const auto slope = [&](int64_t i) { return sigmoid_of(z_at(i)) * (1 + z_at(i) * (1 - sigmoid_of(z_at(i)))); };
      const auto w_at = [&](int64_t i) { return static_cast<double>(w[group * size + i]); };
      for (int64_t i = 0; i < size; i++) {
        v.push_back(static_cast<double>(x[row * pitch + group * size + i]) * (gate == 1 ? silu_at(i) : 1));
        squares += v.back() * v.back();
      }
      const double r = 1 / std::sqrt(squares / static_cast<double>(size) + eps);
      want_rstd.push_back(r);
      for (int64_t i = 0; i < size; i++) {
        const size_t at = static_cast<size_t>(i);
        const double d = static_cast<double>(dy[row * n + group * size + i]), plain = v[at] * r * w_at(i);
        want_y.push_back(plain * (gate == 2 ? silu_at(i) : 1));
        upstream.push_back(d * (gate == 2 ? silu_at(i) : 1));
        if (gate == 2) want_dz[static_cast<size_t>(row * n + group * size) + at] = d * plain * slope(i);
        want_dw[static_cast<size_t>(group * size) + at] += upstream[at] * v[at] * r;
        products += upstream[at] * w_at(i) * v[at];
      }
      for (int64_t i = 0; i < size; i++) {
        const size_t at = static_cast<size_t>(i);
        const double dv = r * w_at(i) * upstream[at] - v[at] * r * r * r * products / static_cast<double>(size);
        want_dx.push_back(dv * (gate == 1 ? silu_at(i) : 1));
        if (gate == 1) {
          want_dz[static_cast<size_t>(row * n + group * size) + at] =
              dv * static_cast<double>(x[row * pitch + group * size + i]) * slope(i);
        }
      }
    }
  }
  const std::vector<int64_t> shape{rows, n}, strides{pitch, 1};
  const View vx = x.view(shape, strides), vz = gate == 0 ? absent : z.view(shape, strides);
  const View vy = y.view(shape), vr = rstd.view({rows, groups}), vdy = dy.view(shape), vdx = dx.view(shape), vdz = dz.view(shape);
  const bool before = gate == 2;
  run(rmsNorm, Packed() << vx << w.view() << vz << vy << vr << eps << static_cast<double>(size) << before, {y, rstd});
  close("y", y, want_y, 1e-6);
  close("rstd", rstd, want_rstd, 1e-6);
  const auto backward = [&](const View& d, const View& to, const View& to_weight, const View& to_gate) {
    return Packed() << vx << w.view() << vz << vr << d << to << to_weight << to_gate << eps << static_cast<double>(size) << before;
  };
  run(rmsNormBackward, backward(vdy, vdx, dw.view(), gate == 0 ? absent : vdz), {dx, dw, dz});
  // Of a few channels, dx may be little but the difference of large terms.
  const double limit = size < 8 ? 2e-5 : 2e-6;
  close("dx", dx, want_dx, limit);
  close("dw", dw, want_dw, 2e-6);
  if (gate != 0) close("dz", dz, want_dz, limit);
  // Each gradient alone, and none of y.
  Array<float> alone(rows * n), alone_w(n);
  run(rmsNormBackward, backward(vdy, absent, alone_w.view(), absent), {alone_w});
  close("dw alone", alone_w, want_dw, 2e-6);
  run(rmsNormBackward, backward(vdy, alone.view(shape), absent, absent), {alone});
  close("dx alone", alone, want_dx, limit);
  run(rmsNormBackward, backward(absent, vdx, dw.view(), gate == 0 ? absent : vdz), {dx, dw, dz});
  close("dx of nothing", dx, Doubles(static_cast<size_t>(rows * n)), 0);
  close("dw of nothing", dw, Doubles(static_cast<size_t>(n)), 0);
}

void test_layer_norm(int64_t rows, int64_t n, bool biased) {
  title = "layerNorm " + std::to_string(rows) + "x" + std::to_string(n);
  const int64_t pitch = n + 3;
  const double eps = 1e-5, count = static_cast<double>(n);
  Array<float> x(rows * pitch, -1, 3), w(n, -1, 1), b(n, -1, 1), dy(rows * n, -1, 1);
  Array<float> y(rows * n), means(rows), rstd(rows), dx(rows * n), dw(n), db(n);
  Doubles want_y, want_mean, want_rstd, want_dx, want_dw(static_cast<size_t>(n)), want_db(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; row++) {
    double mean = 0, variance = 0, sum_g = 0, sum_gv = 0;
    const auto x_at = [&](int64_t i) { return static_cast<double>(x[row * pitch + i]); };
    const auto d_at = [&](int64_t i) { return static_cast<double>(dy[row * n + i]); };
    for (int64_t i = 0; i < n; i++) mean += x_at(i) / count;
    for (int64_t i = 0; i < n; i++) variance += (x_at(i) - mean) * (x_at(i) - mean) / count;
    const double r = 1 / std::sqrt(variance + eps);
    want_mean.push_back(mean);
    want_rstd.push_back(r);
    for (int64_t i = 0; i < n; i++) {
      const double v = (x_at(i) - mean) * r, weight = static_cast<double>(w[i]);
      want_y.push_back(weight * v + (biased ? static_cast<double>(b[i]) : 0));
      want_dw[static_cast<size_t>(i)] += d_at(i) * v;
      want_db[static_cast<size_t>(i)] += d_at(i);
      sum_g += weight * d_at(i);
      sum_gv += weight * d_at(i) * v;
    }
    for (int64_t i = 0; i < n; i++) {
      want_dx.push_back(r * (static_cast<double>(w[i]) * d_at(i) - sum_g / count - (x_at(i) - mean) * r * sum_gv / count));
    }
  }
  const View vx = x.view({rows, n}, {pitch, 1}), bias = biased ? b.view() : absent, vdy = dy.view({rows, n});
  run(layerNorm, Packed() << vx << w.view() << bias << y.view({rows, n}) << means.view() << rstd.view() << eps, {y, means, rstd});
  // Two channels may lie so close that their difference is little but rounding.
  close("y", y, want_y, n < 3 ? 1e-4 : 1e-6);
  close("mean", means, want_mean, 1e-6);
  close("rstd", rstd, want_rstd, n < 3 ? 1e-4 : 1e-6);
  const auto backward = [&](const View& d, const View& to, const View& to_weight, const View& to_bias) {
    return Packed() << vx << w.view() << bias << means.view() << rstd.view() << d << to << to_weight << to_bias << eps;
  };
  // Two channels make dx nearly nothing, the difference of large terms.
  const double limit = n < 3 ? 1e-1 : 2e-6;
  run(layerNormBackward, backward(vdy, dx.view({rows, n}), dw.view(), db.view()), {dx, dw, db});
  close("dx", dx, want_dx, limit);
  close("dw", dw, want_dw, 2e-6);
  close("db", db, want_db, 2e-6);
  run(layerNormBackward, backward(vdy, absent, absent, db.view()), {db});
  close("db alone", db, want_db, 2e-6);
  run(layerNormBackward, backward(absent, dx.view({rows, n}), dw.view(), db.view()), {dx, dw, db});
  close("dx of nothing", dx, Doubles(static_cast<size_t>(rows * n)), 0);
}

void test_cross_entropy(int64_t rows, int64_t classes, double range) {
  title = "softmaxCrossEntropy " + std::to_string(rows) + "x" + std::to_string(classes);
  const int64_t pitch = classes + 7, ignored = -100;
  Array<float> x(rows * pitch, -range, range), d(rows, -1, 1), losses(rows), lse(rows), dx(rows * classes);
  Array<int32_t> target(rows, 0, static_cast<double>(classes));
  for (int64_t row = 0; row < rows; row += 5) target[row] = static_cast<int32_t>(ignored);
  if (classes > 2) x[1] = -INFINITY;
  Doubles want_loss, want_lse, want_dx;
  for (int64_t row = 0; row < rows; row++) {
    double most = -HUGE_VAL, sum = 0;
    const auto at = [&](int64_t i) { return static_cast<double>(x[row * pitch + i]); };
    for (int64_t i = 0; i < classes; i++) most = std::fmax(most, at(i));
    for (int64_t i = 0; i < classes; i++) sum += std::exp(at(i) - most);
    const bool none = target[row] == ignored;
    want_lse.push_back(most + std::log(sum));
    want_loss.push_back(none ? 0 : std::log(sum) + most - at(target[row]));
    for (int64_t i = 0; i < classes; i++) {
      const double p = std::exp(at(i) - want_lse.back()) - (i == target[row]);
      want_dx.push_back(none ? 0 : static_cast<double>(d[row]) * p);
    }
  }
  const View vx = x.view({rows, classes}, {pitch, 1}), vdx = dx.view({rows, classes});
  const Packed packed = Packed() << vx << target.view() << losses.view() << lse.view() << static_cast<double>(ignored);
  run(softmaxCrossEntropy, packed, {losses, lse});
  close("losses", losses, want_loss, 1e-6);
  close("logSumExp", lse, want_lse, 1e-6);
  const auto backward = [&](const View& upstream) {
    return Packed() << vx << target.view() << lse.view() << upstream << vdx << static_cast<double>(ignored);
  };
  run(softmaxCrossEntropyBackward, backward(d.view()), {dx});
  close("dlogits", dx, want_dx, 1e-5);
  run(softmaxCrossEntropyBackward, backward(absent), {dx});
  close("dlogits of nothing", dx, Doubles(static_cast<size_t>(rows * classes)), 0);
  target[rows - 1] = static_cast<int32_t>(classes);
  const std::string words = "target " + std::to_string(classes) + " of row " + std::to_string(rows - 1) + " lies outside [0, " +
                            std::to_string(classes) + "), the classes of logits, and is not ignoreIndex (-100)";
  fails(softmaxCrossEntropy, packed, words.c_str());
  fails(softmaxCrossEntropyBackward, backward(d.view()), words.c_str());
}

void test_adamw(bool finite) {
  title = finite ? "adamw" : "adamw with a norm that is not finite";
  const std::vector<int64_t> sizes{1, 0, 50000, 17, 16384, 3};
  const double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  int64_t all = 0;
  for (const int64_t size : sizes) all += size;
  Array<float> p(all, -1, 1), g(all, -1, 1), m(all, -1, 1), v(all, 0, 1), lr(1, 0.01, 0.02), scale(1, 0.5, 0.6), norm(1, 1, 2);
  Array<uint16_t> copies(all, 0, 100);
  Array<int32_t> step(1, 7, 8);
  if (!finite) norm[0] = numbers.below(2) == 0 ? kNaN : INFINITY;
  Packed packed = Packed() << lr.view({}) << step.view({}) << scale.view({}) << norm.view({}) << beta1 << beta2 << eps
                           << static_cast<double>(sizes.size());
  Packed list = Packed() << static_cast<double>(sizes.size());
  Doubles want_p, want_m, want_v;
  double squares = 0;
  int64_t at = 0;
  for (size_t k = 0; k < sizes.size(); k++) {
    const double decay = k % 2 == 0 ? 0.1 : 0;
    for (const Array<float>* array : {&p, &g, &m, &v}) packed << array->view({sizes[k]}, {}, at);
    // Every second parameter is copied in 16 bits.
    packed << (k % 2 == 0 ? copies.view({sizes[k]}, {}, at) : absent) << decay;
    list << g.view({sizes[k]}, {}, at);
    for (int64_t i = at; i < at + sizes[k]; i++) {
      const double gradient = static_cast<double>(scale[0]) * static_cast<double>(g[i]);
      const double rate = static_cast<double>(lr[0]);
      squares += static_cast<double>(g[i]) * static_cast<double>(g[i]);
      want_m.push_back(beta1 * static_cast<double>(m[i]) + (1 - beta1) * gradient);
      want_v.push_back(beta2 * static_cast<double>(v[i]) + (1 - beta2) * gradient * gradient);
      const double root = std::sqrt(want_v.back() / (1 - std::pow(beta2, 8))) + eps;
      want_p.push_back((1 - rate * decay) * static_cast<double>(p[i]) - rate / (1 - std::pow(beta1, 8)) * want_m.back() / root);
      if (!finite) {
        want_p.back() = static_cast<double>(p[i]);
        want_m.back() = static_cast<double>(m[i]);
        want_v.back() = static_cast<double>(v[i]);
      }
    }
    at += sizes[k];
  }
  const std::vector<uint16_t> old(&copies[0], &copies[0] + all);
  run(adamw, packed, {p, m, v, copies, step});
  close("parameters", p, want_p, finite ? 2e-7 : 0);
  close("m", m, want_m, finite ? 2e-7 : 0);
  close("v", v, want_v, finite ? 2e-7 : 0);
  check(step[0] == (finite ? 8 : 7), "step is %d", step[0]);
  at = 0;
  for (size_t k = 0; k < sizes.size(); at += sizes[k++]) {
    int64_t wrong = 0;
    for (int64_t i = at; i < at + sizes[k]; i++) {
      const uint16_t want = finite && k % 2 == 0 ? Bf16::from(p[i]).bits : old[static_cast<size_t>(i)];
      wrong += copies[i] != want ? 1 : 0;
    }
    check(wrong == 0, "%lld elements of the copy of parameter %zu are wrong", static_cast<long long>(wrong), k);
  }
  title = "globalNorm";
  Array<float> out(1);
  run(globalNorm, list << out.view({}), {out});
  close("norm", out, {std::sqrt(squares)}, 1e-7);
  g[40000] = 1e30f;
  run(globalNorm, list, {out});
  close("norm of large numbers", out, {1e30}, 1e-6);
  g[40000] = kNaN;
  run(globalNorm, list, {out});
  check(std::isnan(out[0]), "of NaN is %g", static_cast<double>(out[0]));
}

/// Its own test is matmul_test.cc; here it runs on memory that does not suffice.
void test_product(int64_t rows, int64_t depth, int64_t columns, bool transposed) {
  title = "matmul " + std::to_string(rows) + "x" + std::to_string(depth) + "x" + std::to_string(columns);
  Array<float> a(rows * depth, -1, 1), b(depth * columns, -1, 1), y(rows * columns, -1, 1);
  const std::vector<int64_t> steps = transposed ? std::vector<int64_t>{0, 1, depth} : std::vector<int64_t>{0, columns, 1};
  Doubles expected;
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) {
      double sum = static_cast<double>(y[i * columns + j]);
      for (int64_t k = 0; k < depth; k++) {
        sum += static_cast<double>(a[i * depth + k]) * static_cast<double>(b[k * steps[1] + j * steps[2]]);
      }
      expected.push_back(sum);
    }
  }
  const Packed packed = Packed() << a.view({1, rows, depth}) << b.view({1, depth, columns}, steps) << y.view({1, rows, columns}) << 1;
  run(matmul, packed, {y});
  close("products", y, expected, 1e-5);
}

void test_products() {
  for (const bool transposed : {false, true}) {
    test_product(1, 700, 301, transposed);
    test_product(3, 300, 70, transposed);
    test_product(20, 5000, 40, transposed);
    test_product(131, 515, 97, transposed);
    test_product(200, 384, 600, transposed);
  }
}

void test_indexing() {
  for (const int64_t columns : {1, 3, 64, 700}) {
    test_gather<float>(50, columns, 301);
    test_gather<int32_t>(50, columns, 301);
    test_gather<uint8_t>(50, columns, 301);
    test_gather<uint16_t>(50, columns, 301);
    for (const int64_t count : {0, 1, 900}) test_scatter_add(37, columns, count);
  }
}

void test_norms() {
  for (int gate = 0; gate < 3; gate++) {
    test_rms_norm(1, 1, 5, gate);
    test_rms_norm(7, 2, 13, gate);
    test_rms_norm(130, 1, 257, gate);
    test_rms_norm(1200, 3, 64, gate);
  }
  for (const int64_t width : {2, 5, 32, 771}) {
    test_layer_norm(300, width, false);
    test_layer_norm(3, width, true);
  }
}

void test_cross_entropies() {
  for (const int64_t classes : {1, 2, 10, 256, 5003}) {
    test_cross_entropy(9, classes, 8);
    test_cross_entropy(101, classes, 60);
  }
}

void test_optimizer() {
  test_adamw(true);
  test_adamw(false);
}

}  // namespace
}  // namespace testing
}  // namespace diffmamba

int main() {
  using namespace diffmamba::testing;
  return finish({test_indexing, test_random, test_norms, test_cross_entropies, test_optimizer, test_products});
}
