// A block of a matrix product: its factors packed, or read where they are, depth block by depth block, and multiplied
// tile by tile.
// Knows one matrix product. Knows no threads and no batch.
#pragma once

#include <algorithm>
#include <new>

#include "../view.h"
#include "matmul_pack.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Depth that a tile sums in registers: a panel of the right factor of so many rows still stays near, and the result is
/// read and written seldom.
constexpr int64_t kMaxDepth = 512;
/// Up to so many columns of the result, the left factor is read where it is; further ones repay the copy.
constexpr int64_t kDirectColumns = 256;
/// Up to so many rows of the result, the right factor is read where it is.
constexpr int64_t kDirectRows = 24;
/// Rows of the left factor that stay, a depth block of them, in the second-level cache.
constexpr int64_t kBlockRows = 96;

inline int64_t pieces_of(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }
inline int64_t round_up(int64_t size, int64_t unit) { return pieces_of(size, unit) * unit; }

/// One matrix: element (i, j) at i * row + j * column, of which one is 1.
struct Matrix {
  char* data = nullptr;
  DType dtype = DType::f32;
  int64_t row = 0;
  int64_t column = 0;

  bool by_rows() const { return column == 1; }
  char* at(int64_t i, int64_t j) const {
    return data + (i * row + j * column) * static_cast<int64_t>(bytes_of(dtype));
  }
  Matrix transposed() const { return {data, dtype, column, row}; }
};

/// out (rows, columns) = left (rows, depth) x right (depth, columns).
struct Product {
  Matrix left;
  Matrix right;
  Matrix out;
  int64_t rows;
  int64_t depth;
  int64_t columns;
  /// Add to what `out` holds.
  bool add;

  /// The right factor is read where it is.
  bool reads_right() const { return rows <= kDirectRows && right.by_rows() && right.dtype == DType::f32; }

  /// Columns k0 .. k1 of the left factor times those rows of the right one.
  Product part(int64_t k0, int64_t k1) const {
    Product p = *this;
    p.left.data = left.at(0, k0);
    p.right.data = right.at(k0, 0);
    p.depth = k1 - k0;
    return p;
  }

  /// out^T = right^T left^T.
  Product transposed() const {
    return {right.transposed(), left.transposed(), out.transposed(), columns, depth, rows, add};
  }

  /// The depth is cut evenly: every sum is that of its blocks' sums, in order.
  int64_t depth_block() const { return pieces_of(depth, pieces_of(depth, kMaxDepth)); }
};

/// Calls body(pointer to the element type) for a matrix's element (i, j).
template <typename Body>
void with_type(const Matrix& m, int64_t i, int64_t j, const Body& body) {
  if (m.dtype == DType::bf16) {
    body(reinterpret_cast<Bf16*>(m.at(i, j)));
  } else if (m.dtype == DType::f16) {
    body(reinterpret_cast<F16*>(m.at(i, j)));
  } else {
    body(reinterpret_cast<float*>(m.at(i, j)));
  }
}

/// Memory of one thread that grows to what is asked for.
class Scratch {
 public:
  ~Scratch() { release(); }

  /// Floats on a cache line's boundary, until the next call; null where there is no memory.
  float* floats(int64_t count) {
    if (count <= size_) return at_;
    release();
    at_ = static_cast<float*>(operator new(static_cast<size_t>(count) * sizeof(float), kLine, std::nothrow));
    size_ = at_ == nullptr ? 0 : count;
    return at_;
  }

 private:
  static constexpr std::align_val_t kLine{64};

  void release() {
    if (at_ != nullptr) operator delete(at_, kLine);
  }

  float* at_ = nullptr;
  int64_t size_ = 0;
};

/// What a piece of a loop needs on the thread it runs on; and what a call shares with the pieces of its loops.
enum class Use { piece, panels, sums };

inline Scratch& scratch(Use use) {
  thread_local Scratch instances[3];
  return instances[static_cast<int>(use)];
}

/// Packs panels of the right factor: rows k0 .. k1, columns j0 .. j1 (j0 on a panel's boundary).
inline void pack_right(const Matrix& right, int64_t k0, int64_t k1, int64_t j0, int64_t j1, float* to) {
  const int64_t depth = k1 - k0;
  with_type(right, k0, j0, [&](const auto* from) {
    if (right.by_rows()) return pack_columns<kTileColumns>(from, right.row, depth, j1 - j0, to);
    for (int64_t j = j0; j < j1; j += kTileColumns, to += depth * kTileColumns, from += kTileColumns * right.column) {
      pack_transposed<kTileColumns>(from, right.column, depth, std::min<int64_t>(kTileColumns, j1 - j), to);
    }
  });
}

/// The rows of a block's left factor, one depth block of them: where they are, or packed.
struct LeftRows {
  const float* at;
  /// Elements from one row to the next; kInPanels where they are packed in panels of a tile's rows.
  static constexpr int64_t kInPanels = -1;
  int64_t pitch;
};

/// Rows i0 .. i1, depth k0 .. k1. `to` is room for (i1 - i0 + kTileRows) x (k1 - k0).
inline LeftRows pack_left(const Matrix& left, int64_t i0, int64_t i1, int64_t k0, int64_t k1, bool direct, float* to) {
  const int64_t depth = k1 - k0;
  if (!left.by_rows()) {
    with_type(left.transposed(), k0, i0,
              [&](const auto* from) { pack_columns<kTileRows>(from, left.column, depth, i1 - i0, to); });
    return {to, LeftRows::kInPanels};
  }
  if (direct && left.dtype == DType::f32) return {reinterpret_cast<const float*>(left.at(i0, k0)), left.row};
  for (int64_t i = i0; i < i1; i++) {
    with_type(left, i, k0, [&](const auto* from) { widen(from, to + (i - i0) * depth, depth); });
  }
  return {to, depth};
}

/// A panel of the right factor times all of a block's rows.
template <int Vectors>
void multiply_panel(const LeftRows& left, int64_t depth, const float* right, int64_t pitch, TileOut out) {
  constexpr auto heights = std::make_integer_sequence<int, kTileRows>();
  const int64_t rows = out.rows;
  const bool packed = left.pitch == LeftRows::kInPanels;
  // Rows in place are shared out evenly: tiles of few rows are slow.
  const int64_t height = packed ? kTileRows : pieces_of(rows, pieces_of(rows, kTileRows));
  for (int64_t i = 0; i < rows; i += height, out.at += height * out.pitch) {
    out.rows = std::min(height, rows - i);
    if (packed) {
      tile_of_rows<Vectors>(depth, PackedRows{}, left.at + i * depth, right, pitch, out, heights);
    } else {
      tile_of_rows<Vectors>(depth, DirectRows{left.pitch}, left.at + i * left.pitch, right, pitch, out, heights);
    }
  }
}

/// Packed panels of a factor, depth block after depth block: of `Width` columns of the right factor, or rows of the left,
/// from `begin` to `end`; the last one filled up with zeros. Absent where `at` is null.
template <int Width>
struct Panels {
  float* at = nullptr;
  int64_t begin = 0;
  int64_t end = 0;

  int64_t floats(int64_t depth) const { return round_up(end - begin, Width) * depth; }
  float* find(int64_t k0, int64_t depth, int64_t i) const { return at + floats(k0) + (i - begin) * depth; }
};

struct Packed {
  Panels<kTileRows> left;
  Panels<kTileColumns> right;
};

/// Rows i0 .. i1 and columns j0 .. j1 of a product (both begin on a panel's boundary); packs itself what was not packed.
/// Returns false where there is no memory.
inline bool multiply_block(const Product& p, int64_t i0, int64_t i1, int64_t j0, int64_t j1, const Packed& packed) {
  const int64_t block = p.depth_block();
  const int64_t columns = j1 - j0;
  const bool direct = packed.right.at == nullptr && p.reads_right();
  const bool packs = packed.right.at == nullptr && !direct;
  const bool narrows = p.out.dtype != DType::f32;

  const int64_t left_room = round_up((std::min(kBlockRows, i1 - i0) + kTileRows) * block, 16);
  const int64_t right_room = packs ? round_up(columns, kTileColumns) * block : 0;
  const int64_t sums_room = narrows ? (i1 - i0) * columns : 0;
  float* const room = scratch(Use::piece).floats(left_room + right_room + sums_room);
  if (room == nullptr) return false;
  float* const own_panels = room + left_room;
  float* const sums = own_panels + right_room;

  for (int64_t k0 = 0; k0 < p.depth; k0 += block) {
    const int64_t k1 = std::min(p.depth, k0 + block);
    const int64_t depth = k1 - k0;
    const float* first_panel = own_panels;
    if (packed.right.at != nullptr) {
      first_panel = packed.right.find(k0, depth, j0);
    } else if (direct) {
      first_panel = reinterpret_cast<const float*>(p.right.at(k0, j0));
    } else {
      pack_right(p.right, k0, k1, j0, j1, own_panels);
    }
    for (int64_t i = i0; i < i1; i += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, i1 - i);
      const LeftRows left = packed.left.at != nullptr
                                ? LeftRows{packed.left.find(k0, depth, i), LeftRows::kInPanels}
                                : pack_left(p.left, i, i + rows, k0, k1, columns <= kDirectColumns, room);
      TileOut out{sums + (i - i0) * columns, columns, rows, 0, k0 > 0};
      if (!narrows) out = {reinterpret_cast<float*>(p.out.at(i, j0)), p.out.row, rows, 0, k0 > 0 || p.add};
      const float* panel = first_panel;
      for (int64_t j = 0; j < columns; j += kTileColumns, out.at += kTileColumns) {
        out.columns = std::min<int64_t>(kTileColumns, columns - j);
        if (out.columns > kLanes) {
          multiply_panel<2>(left, depth, panel, direct ? p.right.row : kTileColumns, out);
        } else {
          multiply_panel<1>(left, depth, panel, direct ? p.right.row : kTileColumns, out);
        }
        panel += direct ? kTileColumns : depth * kTileColumns;
      }
    }
  }
  for (int64_t i = i0; narrows && i < i1; i++) {
    with_type(p.out, i, j0, [&](auto* to) { narrow(sums + (i - i0) * columns, to, columns, p.add); });
  }
  return true;
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
