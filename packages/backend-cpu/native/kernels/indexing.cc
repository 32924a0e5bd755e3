// Rows of a table by index, and the sum of rows into a table.
// Knows rows. Knows no shape rule and no gradient.

#include "../kernels.h"
#include "lanes.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

Error check_index(const View& index, int64_t rows) {
  const int32_t* const at = index.as<int32_t>();
  for (int64_t r = 0; r < index.shape[0]; r++) {
    if (at[r] < 0 || at[r] >= rows) {
      return fail("index %lld at position %lld is outside the table's %lld rows.", static_cast<long long>(at[r]),
                  static_cast<long long>(r), static_cast<long long>(rows));
    }
  }
  return nullptr;
}

}  // namespace

Error gather(Args args) {
  const View table = args.view(), index = args.view(), out = args.view();
  if (const Error error = check_index(index, table.shape[0])) return error;
  const size_t width = bytes_of(table.dtype);
  const size_t row = static_cast<size_t>(table.shape[1]) * width;
  const int64_t from_pitch = table.pitch(1) * static_cast<int64_t>(width);
  const int64_t to_pitch = out.pitch(1) * static_cast<int64_t>(width);
  const int32_t* const at = index.as<int32_t>();
  parallel_for(index.shape[0], 1 + kPieceElements / table.shape[1], [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) memcpy(out.data + r * to_pitch, table.data + at[r] * from_pitch, row);
  });
  return nullptr;
}

/**
 * Each block of columns is summed by one thread, in the order of the rows: no two threads meet, and the order of the sum
 * is that of the index whatever their number.
 */
Error scatterAdd(Args args) {
  const View index = args.view(), src = args.view(), out = args.view();
  const int64_t rows = out.shape[0], columns = out.shape[1], count = index.shape[0];
  if (out.dtype != DType::f32) return fail("an element type that this kernel does not take");
  if (const Error error = check_index(index, rows)) return error;
  const int32_t* const at = index.as<int32_t>();
  const int64_t from_pitch = src.pitch(1), to_pitch = out.pitch(1);
  parallel_for(rows, 1 + kPieceElements / columns, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      memset(out.as<float>() + row * to_pitch, 0, static_cast<size_t>(columns) * sizeof(float));
    }
  });
  // Whole cache lines, and no more blocks than make it worth while.
  const int64_t blocks = count * columns < kPieceElements ? 1 : 4;
  const int64_t block = ((columns + blocks - 1) / blocks + 31) / 32 * 32;
  parallel_for(columns, block, [&](int64_t begin, int64_t end) {
    const float* from = src.as<float>() + begin;
    for (int64_t r = 0; r < count; r++, from += from_pitch) {
      float* const to = out.as<float>() + at[r] * to_pitch + begin;
      each_vector(end - begin, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { lanes.store(to + i, lanes.load(to + i) + lanes.load(from + i)); });
    }
  });
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
