// The matrix product: out (+)= a b for a batch of matrices, every layout of the factors, f32 and halves, with f32 sums.
// Chooses how by the sizes alone: dot products for a few rows, tiles in packed blocks for more; a batch of small ones is
// shared out whole, a long depth with a small result is cut into partial sums. Every element's sum has one order.
// Knows sizes and threads. Knows no element type.

#include <cstring>

#include "../kernels.h"
#include "../pool.h"
#include "matmul_batch.h"
#include "matmul_block.h"
#include "matmul_dots.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// A loop is cut into so many pieces at most, each of so many multiplications at least: more time than waking a thread takes.
constexpr int64_t kPieces = 16;
constexpr int64_t kPieceProducts = 1 << 19;
/// Matrices of a batch with fewer multiplications are shared out whole.
constexpr int64_t kBatchProducts = 1 << 22;
/// Rows and columns that a piece of a result has at least, so that packing its factors stays cheap.
constexpr int64_t kPieceRows = 24;
constexpr int64_t kPieceColumns = 64;
constexpr int64_t kMaxPieceColumns = 2048;
/// A result of up to so many rows is cut into runs of so many columns; each packs the right factor for itself.
constexpr int64_t kFewRows = 192;
constexpr int64_t kFewRowsColumns = 64;
/// Floats that are packed at a time: more where the pass would have fewer multiplications than this.
constexpr int64_t kPassFloats = 1 << 19;
constexpr int64_t kPassProducts = 1 << 27;
/// Depth from which on a result of halves is summed up in f32 first.
constexpr int64_t kLongDepth = 2048;
/// Floats that one piece of packing packs.
constexpr int64_t kPackPiece = 1 << 15;
/// A result of so few elements is cut by depth instead, into parts of such a depth at least.
constexpr int64_t kSmallResult = 1 << 14;
constexpr int64_t kPartDepth = 512;
/// A result of up to so many columns is made transposed where the left factor would be packed for few columns only.
constexpr int64_t kNarrowColumns = 24;
/// Elements of a row of partial sums that are combined at a time.
constexpr int64_t kCombined = 256;

Error whole_matrices(const Batch& batch) {
  const Product& p = batch.first;
  const int64_t grain = 1 + kPieceProducts / (p.rows * p.depth * p.columns);
  Memory memory;
  parallel_for(batch.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) memory.note(multiply_block(batch.at(n), 0, p.rows, 0, p.columns, {}));
  });
  return memory.error(p);
}

/// Rows and columns of the blocks that a result is cut into.
struct Cut {
  int64_t rows;
  int64_t columns;
};

/// At least so many blocks of nearly the same size, where they stay large enough; `tall` ones where only rows may do.
Cut even_cut(int64_t rows, int64_t columns, int64_t wanted, bool tall) {
  int64_t down = pieces_of(rows, kBlockRows);
  int64_t across = pieces_of(columns, kMaxPieceColumns);
  while (down * across < wanted) {
    const bool splits_rows = rows >= 2 * kPieceRows * down;
    const bool splits_columns = columns >= 2 * kPieceColumns * across;
    if (splits_columns && (!splits_rows || (!tall && columns * down >= rows * across))) {
      across++;
    } else if (splits_rows) {
      down++;
    } else {
      break;
    }
  }
  return {round_up(pieces_of(rows, down), kTileRows), round_up(pieces_of(columns, across), kTileColumns)};
}

/// Packs the factors of a pass, shared out to all threads: the right one unless it is read where it is, the left one
/// where its rows are not contiguous.
void pack(const Product& p, const Packed& packed) {
  const int64_t block = p.depth_block();
  const int64_t blocks = pieces_of(p.depth, block);
  const auto& left = packed.left;
  const auto& right = packed.right;
  const int64_t left_run = round_up(pieces_of(kPackPiece, block), kTileRows);
  const int64_t right_run = round_up(pieces_of(kPackPiece, block), kTileColumns);
  const int64_t left_runs = left.at == nullptr ? 0 : pieces_of(left.end, left_run);
  const int64_t right_runs = right.at == nullptr ? 0 : pieces_of(right.end - right.begin, right_run);
  parallel_for((left_runs + right_runs) * blocks, 1, [&](int64_t piece, int64_t) {
    const int64_t k0 = piece % blocks * block;
    const int64_t k1 = std::min(p.depth, k0 + block);
    const int64_t run = piece / blocks;
    if (run < left_runs) {
      const int64_t i = run * left_run;
      pack_left(p.left, i, std::min(p.rows, i + left_run), k0, k1, false, left.find(k0, k1 - k0, i));
      return;
    }
    const int64_t j = right.begin + (run - left_runs) * right_run;
    pack_right(p.right, k0, k1, j, std::min(right.end, j + right_run), right.find(k0, k1 - k0, j));
  });
}

/// How columns j0 .. j1 of a product are cut into blocks, and what of its factors is packed before for all blocks. A left factor whose
/// rows are not contiguous is packed by each block for itself where no other block has its rows; so is the right one with
/// few rows, and then goes no further than the near caches.
struct Plan {
  Cut cut;
  bool packs_left, packs_right;

  Plan(const Product& p, int64_t columns) {
    const bool few_rows = p.rows <= kFewRows && !p.reads_right();
    const int64_t wanted = std::min(kPieces, 1 + p.rows * p.depth * columns / kPieceProducts);
    cut = few_rows ? Cut{p.rows, kFewRowsColumns} : even_cut(p.rows, columns, wanted, !p.left.by_rows());
    packs_left = !p.left.by_rows() && cut.columns < columns;
    packs_right = !few_rows && !p.reads_right();
  }
};

/// Columns j0 .. j1 of a product: factors packed by all threads, then the result's blocks shared out.
Error multiply_pass(const Product& p, int64_t j0, int64_t j1) {
  const int64_t columns = j1 - j0;
  const Plan plan(p, columns);
  const Cut cut = plan.cut;
  Memory memory;
  Packed packed;
  packed.left.end = p.rows;
  packed.right.begin = j0;
  packed.right.end = j1;
  const int64_t left_room = plan.packs_left ? round_up(packed.left.floats(p.depth), 16) : 0;
  const int64_t right_room = plan.packs_right ? packed.right.floats(p.depth) : 0;
  float* const room = scratch(Use::panels).floats(left_room + right_room);
  memory.note(room != nullptr || left_room + right_room == 0);
  if (const Error error = memory.error(p)) return error;
  if (plan.packs_left) packed.left.at = room;
  if (plan.packs_right) packed.right.at = room + left_room;
  pack(p, packed);

  const int64_t down = pieces_of(p.rows, cut.rows);
  const int64_t grain = 1 + kPieceProducts / (cut.rows * p.depth * cut.columns);
  parallel_for(down * pieces_of(columns, cut.columns), grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t i = n % down * cut.rows;
      const int64_t j = j0 + n / down * cut.columns;
      memory.note(multiply_block(p, i, std::min(p.rows, i + cut.rows), j, std::min(j1, j + cut.columns), packed));
    }
  });
  return memory.error(p);
}

/// All columns and all of the depth, as much at a time as stays in the last-level cache once packed; sums of a part of the
/// depth are added to those before.
Error multiply_passes(const Product& p) {
  const int64_t columns = std::min(p.columns, kMaxPieceColumns);
  const int64_t floats = std::clamp(kPassProducts / p.rows, kPassFloats, 4 * kPassFloats);
  const int64_t block = p.depth_block();
  const int64_t wide = columns + (Plan(p, columns).packs_left ? p.rows : 0);
  const int64_t depth = p.out.dtype == DType::f32 ? std::max<int64_t>(1, floats / wide / block) * block : p.depth;
  for (int64_t j = 0; j < p.columns; j += columns) {
    for (int64_t k = 0; k < p.depth; k += depth) {
      Product pass = p.part(k, std::min(p.depth, k + depth));
      pass.add = p.add || k > 0;
      if (const Error error = multiply_pass(pass, j, std::min(p.columns, j + columns))) return error;
    }
  }
  return nullptr;
}

/// f32 results of one product that lie one after another, of parts of its depth, perhaps transposed.
struct Partial {
  float* sums;
  int64_t parts;
  bool transposed;
};

/// out (+)= the sum of all parts, in order.
void combine(const Product& p, const Partial& partial) {
  const int64_t size = p.rows * p.columns;
  const int64_t row_step = partial.transposed ? 1 : p.columns;
  const int64_t column_step = partial.transposed ? p.rows : 1;
  parallel_for(p.rows, 1 + kPackPiece / (partial.parts * p.columns), [&](int64_t begin, int64_t end) {
    float row[kCombined];
    for (int64_t i = begin; i < end; i++) {
      for (int64_t j = 0; j < p.columns; j += kCombined) {
        const int64_t columns = std::min(kCombined, p.columns - j);
        const float* from = partial.sums + i * row_step + j * column_step;
        for (int64_t c = 0; c < columns; c++) row[c] = from[c * column_step];
        for (int64_t part = 1; part < partial.parts; part++) {
          from += size;
          for (int64_t c = 0; c < columns; c++) row[c] += from[c * column_step];
        }
        with_type(p.out, i, j, [&](auto* to) { narrow(row, to, columns, p.add); });
      }
    }
  });
}

/// The product by way of f32 results of so many parts of the depth.
Error multiply_parts(const Product& p, int64_t parts, bool transposed) {
  Memory memory;
  float* const sums = scratch(Use::sums).floats(parts * p.rows * p.columns);
  memory.note(sums != nullptr);
  if (sums == nullptr) return memory.error(p);
  const auto part = [&](int64_t n) {
    const int64_t k0 = n * p.depth / parts;
    const Product q = p.part(k0, (n + 1) * p.depth / parts);
    Product result = transposed ? q.transposed() : q;
    result.out = {reinterpret_cast<char*>(sums + n * p.rows * p.columns), DType::f32, result.columns, 1};
    result.add = false;
    return result;
  };
  if (parts == 1) {
    if (const Error error = multiply_passes(part(0))) return error;
  } else {
    parallel_for(parts, 1, [&](int64_t n, int64_t) {
      const Product q = part(n);
      memory.note(multiply_block(q, 0, q.rows, 0, q.columns, {}));
    });
    if (const Error error = memory.error(p)) return error;
  }
  combine(p, {sums, parts, transposed});
  return nullptr;
}

Error one_matrix(const Product& p) {
  const bool transposes = p.columns <= kNarrowColumns && !p.left.by_rows() && p.left.dtype == DType::f32;
  const bool splits = p.rows * p.columns <= kSmallResult && p.rows * p.columns * p.depth >= 2 * kPieceProducts;
  const int64_t parts = splits ? std::clamp<int64_t>(p.depth / kPartDepth, 1, kPieces) : 1;
  const bool sums_apart = p.out.dtype != DType::f32 && p.depth > kLongDepth;
  return parts > 1 || transposes || sums_apart ? multiply_parts(p, parts, transposes) : multiply_passes(p);
}

/// One matrix of a view of (batch, rows, columns): by rows or by columns, as asked for where it could be seen as either.
bool read_matrix(const View& v, bool rows_first, Matrix& m) {
  const bool rows = v.strides[2] == 1 || v.shape[2] == 1;
  const bool columns = v.strides[1] == 1 || v.shape[1] == 1;
  if (!rows && !columns) return false;
  const bool by_rows = rows && (rows_first || !columns);
  m = {v.data, v.dtype, by_rows ? v.strides[1] : 1, by_rows ? 1 : v.strides[2]};
  return true;
}

/// A batch that shares its right factor, and whose rows follow on one another, is one matrix.
void join_rows(Batch& batch) {
  Product& p = batch.first;
  const int64_t left_step = batch.steps[0] / static_cast<int64_t>(bytes_of(p.left.dtype));
  const int64_t out_step = batch.steps[2] / static_cast<int64_t>(bytes_of(p.out.dtype));
  if (batch.count == 1 || batch.steps[1] != 0 || !p.left.by_rows()) return;
  if (p.rows == 1) {
    p.left.row = left_step;
    p.out.row = out_step;
  }
  if (left_step != p.rows * p.left.row || out_step != p.rows * p.out.row) return;
  p.rows *= batch.count;
  batch.count = 1;
}

/// An empty sum is 0.
void clear(const Batch& batch) {
  const Product& p = batch.first;
  for (int64_t n = 0; n < batch.count * p.rows; n++) {
    const Product one = batch.at(n / p.rows);
    memset(one.out.at(n % p.rows, 0), 0, static_cast<size_t>(p.columns) * bytes_of(p.out.dtype));
  }
}

bool is_float(const View& v) { return v.dtype == DType::f32 || v.dtype == DType::bf16 || v.dtype == DType::f16; }

}  // namespace

Error matmul(Args args) {
  const View a = args.view();
  const View b = args.view();
  const View out = args.view();
  const bool add = args.flag();
  Batch batch{{{}, {}, {}, a.shape[1], a.shape[2], b.shape[2], add}, a.shape[0], {}};
  Product& p = batch.first;
  if (!is_float(a) || !is_float(b) || !is_float(out)) return fail("the matrices must be f32, bf16 or f16");
  if (batch.count * p.rows * p.columns == 0) return nullptr;
  if (!read_matrix(a, true, p.left) || !read_matrix(b, p.depth == 1, p.right) || !read_matrix(out, true, p.out) ||
      !p.out.by_rows()) {
    return fail("each factor needs one contiguous axis, and the result a contiguous last one");
  }
  batch.steps[0] = a.strides[0] * static_cast<int64_t>(bytes_of(a.dtype));
  batch.steps[1] = b.strides[0] * static_cast<int64_t>(bytes_of(b.dtype));
  batch.steps[2] = out.strides[0] * static_cast<int64_t>(bytes_of(out.dtype));
  join_rows(batch);

  if (p.depth == 0) {
    if (!add) clear(batch);
    return nullptr;
  }
  if (suits_dots(p)) return dot_products(batch);
  if (suits_dots(p.transposed())) return dot_products(batch.transposed());
  if (batch.count > 1 && p.rows * p.depth * p.columns < kBatchProducts) return whole_matrices(batch);
  for (int64_t n = 0; n < batch.count; n++) {
    if (const Error error = one_matrix(batch.at(n))) return error;
  }
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
