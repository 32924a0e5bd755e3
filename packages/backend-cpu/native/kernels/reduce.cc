// Sums, maxima, argmax and running sums over axes of any layout. Sums are kept in doubles or 64-bit integers and rounded
// once; long ones are cut into segments, by size alone, whose results are joined in order.
// Knows strided memory. Knows no shape rule and no gradient.

#include <limits>

#include "../kernels.h"
#include "lanes.h"
#include "lines.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

// A reduction over T: what it starts from, how two results join, and how elements become part of one. `Many` holds
// kCount results at once.

template <typename T, typename Wide>
struct Sum {
  using Element = T;
  using Result = Wide;
  static constexpr int kCount = kWide;
  using Many = typename VectorOf<Wide, kCount>::Type;

  static Wide start() { return 0; }
  static Wide join(Wide a, Wide b) { return a + b; }
  static Many join(Many a, Many b) { return a + b; }
  static Many load(const T* from) { return load_wide<Wide>(from); }
};

/// NaN is never greater.
template <typename T>
struct Larger {
  using Element = T;
  using Result = T;
  static constexpr int kCount = kLanes * 4 / sizeof(T);
  using Many = typename VectorOf<T, kCount>::Type;

  static T start() {
    return std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::min();
  }
  static T join(T a, T b) { return b > a ? b : a; }
  static Many join(Many a, Many b) { return b > a ? b : a; }
  static Many load(const T* from) {
    Many many;
    memcpy(&many, from, sizeof many);
    return many;
  }
};

/// NaN counts as greatest: it must not get lost.
template <typename T>
struct Greatest : Larger<T> {
  using Many = typename Larger<T>::Many;
  static T join(T a, T b) { return b > a || b != b ? b : a; }
  static Many join(Many a, Many b) { return ((b > a) | (b != b)) ? b : a; }
};

template <typename F>
typename F::Many load_results(const typename F::Result* from) {
  typename F::Many many;
  memcpy(&many, from, sizeof many);
  return many;
}

/// The result of n elements, `step` apart.
template <typename F>
typename F::Result reduce_run(const typename F::Element* x, int64_t n, int64_t step) {
  using Many = typename F::Many;
  constexpr int kCount = F::kCount;
  typename F::Result result = F::start();
  int64_t i = 0;
  if (step == 1 && n >= kChains * kCount) {
    Many chains[kChains];
    for (Many& many : chains) many = Many{} + F::start();
    for (; i + kChains * kCount <= n; i += kChains * kCount) {
      for (int chain = 0; chain < kChains; chain++) {
        chains[chain] = F::join(chains[chain], F::load(x + i + chain * kCount));
      }
    }
    const Many all = F::join(F::join(chains[0], chains[1]), F::join(chains[2], chains[3]));
    for (int lane = 0; lane < kCount; lane++) result = F::join(result, all[lane]);
  }
  for (; i < n; i++) result = F::join(result, x[i * step]);
  return result;
}

/// results[c] takes in element c of n rows, `pitch` apart, for neighbouring columns c.
template <typename F>
void reduce_rows(typename F::Result* results, const typename F::Element* x, int64_t columns, int64_t n, int64_t pitch) {
  constexpr int kCount = F::kCount;
  int64_t row = 0;
  for (; row + 4 <= n; row += 4) {
    const typename F::Element* const from = x + row * pitch;
    int64_t c = 0;
    for (; c + kCount <= columns; c += kCount) {
      const auto low = F::join(F::load(from + c), F::load(from + pitch + c));
      const auto high = F::join(F::load(from + 2 * pitch + c), F::load(from + 3 * pitch + c));
      const auto all = F::join(load_results<F>(results + c), F::join(low, high));
      memcpy(results + c, &all, sizeof all);
    }
    for (; c < columns; c++) {
      for (int k = 0; k < 4; k++) results[c] = F::join(results[c], from[k * pitch + c]);
    }
  }
  for (; row < n; row++) {
    for (int64_t c = 0; c < columns; c++) results[c] = F::join(results[c], x[row * pitch + c]);
  }
}

/// Each result on its own, from all that it is made of.
template <typename F>
void reduce_lines(const View& x, const View& out, const Axes& kept, const Axes& along) {
  using Element = typename F::Element;
  const int64_t elements = along.size();
  parallel_for(kept.size(), 1 + kPieceElements / elements, [&](int64_t begin, int64_t end) {
    kept.each_run(begin, end, [&](int64_t in, int64_t to, int64_t n) {
      const int64_t from_step = kept.from_step(), to_step = kept.to_step();
      const Element* from = x.as<Element>() + in;
      Element* result = out.as<Element>() + to;
      for (int64_t i = 0; i < n; i++, from += from_step, result += to_step) {
        typename F::Result all = F::start();
        along.each_run(0, elements, [&](int64_t at, int64_t, int64_t count) {
          all = F::join(all, reduce_run<F>(from + at, count, along.from_step()));
        });
        *result = static_cast<Element>(all);
      }
    });
  });
}

/// Columns that are reduced side by side.
constexpr int64_t kColumns = 1024;

/// Segments of all results at most.
constexpr int64_t kSegments = 64;

int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

/**
 * Results are worked out in blocks of `columns` neighbours where these lie side by side in x, else one by one; each from
 * `segments` parts of the elements that it is made of.
 */
template <typename F>
Error run_reduce(const View& x, const View& out) {
  using Element = typename F::Element;
  using Result = typename F::Result;
  Axes kept, along;
  for (int axis = 0; axis < x.rank; axis++) {
    const bool reduced = out.shape[axis] != x.shape[axis];
    (reduced ? along : kept).add(x.shape[axis], x.strides[axis], reduced ? 0 : out.strides[axis]);
  }
  kept.merge();
  along.merge();
  const bool side_by_side = kept.from_step() == 1 && kept.inner() > 1;
  const int64_t columns = side_by_side ? clamp(kept.inner(), 1, kColumns) : 1;
  const int64_t blocks = (kept.inner() + columns - 1) / columns;
  const int64_t units = kept.size() / kept.inner() * blocks;
  const int64_t elements = along.size();
  const int64_t wanted = clamp(elements * columns / kPieceElements, 1, clamp(kSegments / units, 1, kSegments));
  if (wanted == 1 && !side_by_side) {
    reduce_lines<F>(x, out, kept, along);
    return nullptr;
  }
  const int64_t length = (elements + wanted - 1) / wanted;
  const int64_t segments = (elements + length - 1) / length;
  Result* const results = scratch<Result>(segments == 1 ? 0 : units * segments * columns);
  if (segments > 1 && results == nullptr) return fail("out of memory for partial results");

  /// Of unit `unit`: how many columns, and where its first lies.
  const auto place = [&](int64_t unit, int64_t& in, int64_t& to) {
    const int64_t first = unit % blocks * columns;
    kept.locate(unit / blocks * kept.inner() + first, in, to);
    return clamp(kept.inner() - first, 1, columns);
  };
  const auto write = [&](int64_t to, int64_t n, const Result* from) {
    for (int64_t c = 0; c < n; c++) out.as<Element>()[to + c * kept.to_step()] = static_cast<Element>(from[c]);
  };
  parallel_for(units * segments, 1 + kPieceElements / (length * columns), [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; index++) {
      Result own[kColumns];
      Result* const partial = segments == 1 ? own : results + index * columns;
      const int64_t first = index % segments * length;
      const int64_t last = clamp(first + length, 0, elements);
      int64_t in, to;
      const int64_t n = place(index / segments, in, to);
      for (int64_t c = 0; c < n; c++) partial[c] = F::start();
      along.each_run(first, last, [&](int64_t at, int64_t, int64_t count) {
        const Element* const from = x.as<Element>() + in + at;
        if (side_by_side) {
          reduce_rows<F>(partial, from, n, count, along.from_step());
        } else {
          partial[0] = F::join(partial[0], reduce_run<F>(from, count, along.from_step()));
        }
      });
      if (segments == 1) write(to, n, partial);
    }
  });
  for (int64_t unit = 0; unit < units && segments > 1; unit++) {
    Result* const total = results + unit * segments * columns;
    int64_t in, to;
    const int64_t n = place(unit, in, to);
    for (int64_t segment = 1; segment < segments; segment++) {
      for (int64_t c = 0; c < n; c++) total[c] = F::join(total[c], total[segment * columns + c]);
    }
    write(to, n, total);
  }
  return nullptr;
}

/// The first greatest of n elements, `step` apart. Like in the definition, NaN is never greater, and in the first place
/// it is never less.
template <typename T>
int64_t first_greatest(const T* x, int64_t n, int64_t step) {
  if (x[0] != x[0]) return 0;
  const T greatest = reduce_run<Larger<T>>(x, n, step);
  int64_t i = 0;
  constexpr int64_t kBlock = 64;
  for (; step == 1 && i + kBlock <= n; i += kBlock) {
    int found = 0;
    for (int64_t k = 0; k < kBlock; k++) found |= x[i + k] == greatest;
    if (found) break;
  }
  while (x[i * step] != greatest) i++;
  return i;
}

template <typename T>
Error run_argmax(const View& x, const View& out) {
  const int last = x.rank - 1;
  const int64_t size = x.shape[last], step = x.strides[last];
  Axes kept;
  for (int axis = 0; axis < last; axis++) kept.add(x.shape[axis], x.strides[axis], out.strides[axis]);
  kept.merge();
  parallel_for(kept.size(), 1 + kPieceElements / size, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; index++) {
      int64_t in, to;
      kept.locate(index, in, to);
      out.as<int32_t>()[to] = static_cast<int32_t>(first_greatest(x.as<T>() + in, size, step));
    }
  });
  return nullptr;
}

/// Lines whose running sums go forward side by side: many where they are neighbours in memory.
constexpr int64_t kNeighbours = 512;
constexpr int64_t kStrangers = 4;

struct Steps {
  /// From line to line, and along a line, in the input and in the output.
  int64_t in, out, in_along, out_along;
};

inline ALWAYS_INLINE void running_sums(const float* x, float* y, int64_t lines, int64_t n, Steps step) {
  double sums[kNeighbours] = {};
  for (int64_t i = 0; i < n; i++) {
    for (int64_t line = 0; line < lines; line++) {
      sums[line] += static_cast<double>(x[line * step.in]);
      y[line * step.out] = static_cast<float>(sums[line]);
    }
    x += step.in_along;
    y += step.out_along;
  }
}

Error wrong_type() { return fail("an element type that this kernel does not take"); }

}  // namespace

Error reduce(Args args) {
  const bool greatest = args.integer() == 1;
  const View x = args.view(), out = args.view();
  switch (x.dtype) {
    case DType::f32:
      return greatest ? run_reduce<Greatest<float>>(x, out) : run_reduce<Sum<float, double>>(x, out);
    case DType::i32:
      return greatest ? run_reduce<Greatest<int32_t>>(x, out) : run_reduce<Sum<int32_t, int64_t>>(x, out);
    case DType::u8:
      return greatest ? run_reduce<Greatest<uint8_t>>(x, out) : run_reduce<Sum<uint8_t, int64_t>>(x, out);
    default:
      return wrong_type();
  }
}

Error argmax(Args args) {
  const View x = args.view(), out = args.view();
  switch (x.dtype) {
    case DType::f32:
      return run_argmax<float>(x, out);
    case DType::i32:
      return run_argmax<int32_t>(x, out);
    case DType::u8:
      return run_argmax<uint8_t>(x, out);
    default:
      return wrong_type();
  }
}

Error cumsum(Args args) {
  const View x = args.view(), out = args.view();
  const int64_t axis = args.integer();
  const bool reverse = args.flag();
  if (x.dtype != DType::f32) return wrong_type();
  const int64_t n = x.shape[axis];
  Axes lines;
  for (int i = 0; i < x.rank; i++) {
    if (i != axis) lines.add(x.shape[i], x.strides[i], out.strides[i]);
  }
  lines.merge();
  const int64_t sign = reverse ? -1 : 1;
  const Steps step{lines.from_step(), lines.to_step(), sign * x.strides[axis], sign * out.strides[axis]};
  const bool neighbours = step.in == 1 && step.out == 1;
  const int64_t most = neighbours ? kNeighbours : kStrangers;
  const int64_t inner = lines.inner();
  const int64_t groups = (inner + most - 1) / most;
  parallel_for(lines.size() / inner * groups, 1 + kPieceElements / (n * most), [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; index++) {
      const int64_t first = index % groups * most;
      const int64_t count = clamp(inner - first, 1, most);
      int64_t in, to;
      lines.locate(index / groups * inner + first, in, to);
      const float* const from = x.as<float>() + in + (reverse ? (n - 1) * x.strides[axis] : 0);
      float* const y = out.as<float>() + to + (reverse ? (n - 1) * out.strides[axis] : 0);
      if (neighbours && count == kNeighbours) {
        running_sums(from, y, kNeighbours, n, {1, 1, step.in_along, step.out_along});
      } else if (count == kStrangers) {
        running_sums(from, y, kStrangers, n, step);
      } else {
        running_sums(from, y, count, n, step);
      }
    }
  });
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
