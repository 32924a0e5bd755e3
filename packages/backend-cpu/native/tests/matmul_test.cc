// The matrix product kernel against a plain loop in doubles: every layout, odd sizes, pitches, batches, storage types,
// accumulation, and the same bits with 1, 2 and 3 threads. Whatever lies between rows is NaN, and must stay what it was.
// Build: g++ -std=c++17 -O2 -mavx2 -mfma -ffp-contract=fast -pthread -DDIFFMAMBA_ISA=avx2 -Inative
//   native/tests/matmul_test.cc native/kernels/matmul.cc native/pool.cc -o matmul_test
// Knows the kernel by its packed arguments alone.

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "half.h"
#include "kernels.h"
#include "pool.h"

namespace diffmamba {

Error fail(const char* format, ...) {
  static char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return message;
}

namespace {

int failures = 0;

struct Random {
  uint64_t state = 88172645463325252ull;
  uint64_t bits() {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  }
  float value() { return static_cast<float>(static_cast<int64_t>(bits() % 20001) - 10000) * 1e-4f; }
} rng;

float read(DType dtype, const char* at) {
  if (dtype == DType::bf16) return *reinterpret_cast<const Bf16*>(at);
  if (dtype == DType::f16) return *reinterpret_cast<const F16*>(at);
  return *reinterpret_cast<const float*>(at);
}

void write(DType dtype, char* at, float x) {
  if (dtype == DType::bf16) {
    *reinterpret_cast<Bf16*>(at) = Bf16::from(x);
  } else if (dtype == DType::f16) {
    *reinterpret_cast<F16*>(at) = F16::from(x);
  } else {
    *reinterpret_cast<float*>(at) = x;
  }
}

/// A batch of matrices in memory as backends have it: aligned, with 64 bytes to spare, and NaN where there is no element.
struct Matrices {
  int64_t batch, rows, columns, row, column, step;
  DType dtype;
  std::vector<char> memory;
  char* data;

  Matrices(int64_t batch, int64_t rows, int64_t columns, bool transposed, int64_t gap, bool shared, DType dtype)
      : batch(batch), rows(rows), columns(columns), dtype(dtype) {
    row = transposed ? 1 : columns + gap;
    column = transposed ? rows + gap : 1;
    step = shared ? 0 : (transposed ? columns * column : rows * row) + gap;
    const size_t width = bytes_of(dtype);
    const size_t elements = static_cast<size_t>((shared ? 1 : batch) * (std::max(row * rows, column * columns) + gap) + gap);
    memory.resize(elements * width + 192);
    data = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    for (size_t i = 0; i < elements + 64 / width; i++) write(dtype, data + i * width, std::numeric_limits<float>::quiet_NaN());
    data += static_cast<size_t>(gap) * width;
    for (int64_t n = 0; n < batch; n++) {
      for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) write(dtype, at(n, i, j), rng.value());
      }
    }
  }

  Matrices(const Matrices&) = delete;

  char* at(int64_t n, int64_t i, int64_t j) const {
    return data + (n * step + i * row + j * column) * static_cast<int64_t>(bytes_of(dtype));
  }

  std::vector<double> row_of(int64_t n, int64_t i) const {
    std::vector<double> values;
    for (int64_t j = 0; j < columns; j++) values.push_back(read(dtype, at(n, i, j)));
    return values;
  }

  /// One column after the other.
  std::vector<double> columns_of(int64_t n) const {
    std::vector<double> values;
    for (int64_t j = 0; j < columns; j++) {
      for (int64_t i = 0; i < rows; i++) values.push_back(read(dtype, at(n, i, j)));
    }
    return values;
  }

  void pack(std::vector<double>& to) const {
    const double fields[15] = {static_cast<double>(reinterpret_cast<uintptr_t>(data)), static_cast<double>(dtype), 3,
                               double(batch), double(rows), double(columns), 1, 1, 1,
                               double(step), double(row), double(column), 0, 0, 0};
    to.insert(to.end(), fields, fields + 15);
  }
};

/// A sum, and the sum of its terms' sizes, which rounding is measured by.
struct Sum {
  double total = 0, size = 0;

  void add(double x) {
    total += x;
    size += std::fabs(x);
  }

  /// Sanitizers have nothing to find here, and would take most of their time for it.
  __attribute__((no_sanitize("address", "undefined", "thread"))) void add_products(const double* a, const double* b, int64_t n) {
    double sum = 0, sizes = 0;
    for (int64_t k = 0; k < n; k++) {
      sum += a[k] * b[k];
      sizes += std::fabs(a[k] * b[k]);
    }
    total += sum;
    size += sizes;
  }
};

struct Case {
  int64_t batch, rows, depth, columns;
  bool a_transposed = false, b_transposed = false;
  int64_t gap = 0;
  bool b_shared = false, add = false;
  DType a = DType::f32, b = DType::f32, out = DType::f32;
};

void check(const Case& c) {
  const Matrices a(c.batch, c.rows, c.depth, c.a_transposed, c.gap, false, c.a);
  const Matrices b(c.batch, c.depth, c.columns, c.b_transposed, c.gap, c.b_shared, c.b);
  Matrices out(c.batch, c.rows, c.columns, false, c.gap, false, c.out);
  const std::vector<char> before = out.memory;
  std::vector<double> arguments;
  a.pack(arguments);
  b.pack(arguments);
  out.pack(arguments);
  arguments.push_back(c.add ? 1 : 0);

  std::vector<char> first;
  const char* wrong = nullptr;
  for (int threads = 1; threads <= 3 && wrong == nullptr; threads++) {
    memcpy(out.memory.data(), before.data(), before.size());
    pool_limit(threads);
    wrong = DIFFMAMBA_ISA::matmul(Args(arguments.data()));
    if (threads == 1) first = out.memory;
    if (wrong == nullptr && first != out.memory) wrong = "other bits with more threads";
  }

  // Each element may be off by the rounding of its storage, of the products and of a sum of so many terms.
  const double unit = c.out == DType::f32 ? 0x1p-24 : c.out == DType::f16 ? 0x1p-11 : 0x1p-8;
  double worst = 0;
  std::vector<char> expected = before;
  for (int64_t n = 0; n < c.batch; n++) {
    const std::vector<double> right = b.columns_of(n);
    for (int64_t i = 0; i < c.rows; i++) {
      const std::vector<double> row = a.row_of(n, i);
      for (int64_t j = 0; j < c.columns; j++) {
        const int64_t offset = out.at(n, i, j) - out.memory.data();
        Sum sum;
        if (c.add) sum.add(read(c.out, before.data() + offset));
        sum.add_products(row.data(), right.data() + j * c.depth, c.depth);
        const double got = read(c.out, out.at(n, i, j));
        const double allowed = 1e-7 + unit * std::fabs(sum.total) + 0x1p-24 * sum.size * (3 + std::sqrt(double(c.depth)) / 4);
        const double error = std::fabs(got - sum.total) / allowed;
        worst = std::max(worst, error <= 1e9 ? error : 1e9);
        memcpy(expected.data() + offset, out.at(n, i, j), bytes_of(c.out));
      }
    }
  }
  if (wrong == nullptr && worst > 1) wrong = "not the product";
  if (wrong == nullptr && expected != out.memory) wrong = "wrote where there is no element";
  if (wrong == nullptr) return;
  failures++;
  printf("FAILED %s: %lld x (%lld, %lld)%s x (%lld, %lld)%s, gap %lld, shared %d, add %d, types %d %d %d; %.2g times the error allowed\n",
         wrong, (long long)c.batch, (long long)c.rows, (long long)c.depth, c.a_transposed ? "^T" : "", (long long)c.depth,
         (long long)c.columns, c.b_transposed ? "^T" : "", (long long)c.gap, c.b_shared, c.add, (int)c.a, (int)c.b,
         (int)c.out, worst);
}

/// All four layouts of a shape, close together and with gaps, with and without accumulation; if `brief`, each layout once.
void check_layouts(Case c, bool brief) {
  for (int form = 0; form < 4; form++) {
    for (int variant = 0; variant < 4; variant++) {
      if (brief && variant != form) continue;
      c.a_transposed = form & 1;
      c.b_transposed = form & 2;
      c.gap = variant & 1 ? 5 : 0;
      c.add = variant & 2;
      check(c);
    }
  }
}

void check_types() {
  const DType types[] = {DType::f32, DType::bf16, DType::f16};
  const int64_t sizes[][3] = {{1, 67, 19}, {3, 300, 70}, {40, 33, 50}, {130, 500, 67}, {20, 4200, 30}, {50, 4200, 270}};
  for (const auto& size : sizes) {
    for (const DType a : types) {
      for (const DType b : types) {
        for (const DType out : types) {
          if (size[1] > 1000 && (a != b || out == a)) continue;
          for (int form = 0; form < 4; form++) {
            check({1, size[0], size[1], size[2], bool(form & 1), bool(form & 2), 3, false, bool(form == 1), a, b, out});
          }
        }
      }
    }
  }
}

/// Every bf16 and f16 number, and numbers between them, through a product with 1.
void check_rounding() {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const int64_t count = 65536;
    for (int64_t nudge = -1; nudge <= 1; nudge++) {
      Matrices a(1, count, 2, false, 0, false, DType::f32);
      Matrices b(1, 2, 8, false, 0, false, DType::f32);
      Matrices out(1, count, 8, false, 0, false, dtype);
      Matrices wide(1, count, 8, false, 0, false, DType::f32);
      for (int64_t j = 0; j < 8; j++) {
        write(DType::f32, b.at(0, 0, j), 1);
        write(DType::f32, b.at(0, 1, j), 0);
      }
      for (int64_t i = 0; i < count; i++) {
        const uint16_t half = static_cast<uint16_t>(i);
        float x = dtype == DType::bf16 ? float(Bf16{half}) : float(F16{half});
        // Halfway to the next number, or a unit of f32 to its side.
        if (std::isfinite(x)) {
          const uint32_t unit = dtype == DType::bf16 ? 0x8000 : 0x1000;
          x = float_of(bits_of(x) + unit + static_cast<uint32_t>(nudge));
        }
        write(DType::f32, a.at(0, i, 0), x);
        write(DType::f32, a.at(0, i, 1), 0);
      }
      std::vector<double> arguments;
      a.pack(arguments);
      b.pack(arguments);
      out.pack(arguments);
      arguments.push_back(0);
      if (DIFFMAMBA_ISA::matmul(Args(arguments.data())) != nullptr) failures++;
      for (int64_t i = 0; i < count; i++) {
        const float x = read(DType::f32, a.at(0, i, 0));
        uint16_t got;
        memcpy(&got, out.at(0, i, 3), 2);
        const uint16_t want = dtype == DType::bf16 ? Bf16::from(x).bits : F16::from(x).bits;
        // The sum with +0 loses the sign of a zero.
        const bool right = std::isnan(x) ? std::isnan(read(dtype, out.at(0, i, 3))) : got == want || x == 0;
        if (!right && failures++ < 20) printf("FAILED rounding %a to type %d: %04x, not %04x\n", x, (int)dtype, got, want);
      }
    }
  }
}

}  // namespace
}  // namespace diffmamba

/// With the argument `brief`, which is for sanitizers, fewer combinations.
int main(int count, char** arguments) {
  using namespace diffmamba;
  const bool brief = count > 1 && strcmp(arguments[1], "brief") == 0;
  if (!pool_start(3)) return 2;
  const int64_t sizes[] = {1, 2, 4, 5, 7, 17, 33, 50};
  for (const int64_t rows : sizes) {
    for (const int64_t depth : {int64_t(0), int64_t(1), int64_t(3), int64_t(8), int64_t(31), int64_t(64)}) {
      for (const int64_t columns : sizes) check_layouts({1, rows, depth, columns}, brief);
    }
  }
  for (const auto& s : {Case{1, 131, 515, 97}, Case{1, 200, 384, 600}, Case{1, 20, 5000, 40}, Case{1, 97, 4500, 260},
                        Case{1, 49, 1100, 300}, Case{1, 15, 700, 530}, Case{3, 70, 65, 40}, Case{3, 1, 65, 40},
                        Case{40, 24, 32, 24}, Case{2, 300, 260, 70}, Case{0, 3, 3, 3}, Case{1, 0, 3, 3}, Case{1, 3, 3, 0},
                        Case{1, 13, 300, 200}, Case{1, 100, 70, 150}, Case{1, 192, 40, 70}, Case{1, 193, 40, 70}, Case{1, 200, 9, 2100}, Case{1, 40, 300, 2100}}) {
    check_layouts(s, brief);
    Case shared = s;
    shared.b_shared = true;
    if (s.batch > 1) check_layouts(shared, brief);
  }
  check_types();
  check_rounding();
  printf(failures == 0 ? "matmul: all as they should be\n" : "matmul: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
