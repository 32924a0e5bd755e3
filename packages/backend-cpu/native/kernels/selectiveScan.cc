// The selective scan (S6) of Mamba: a block of channels at a time through some tokens, a few states of it at a time in
// registers, B and C of a token spread over their lanes.
// Knows views and vectors. Knows no gradient.

#include "selectiveScan.h"

#include <atomic>

#include "../kernels.h"
#include "../pool.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Tokens that a block goes through at a time: what they need stays in the nearest cache.
constexpr int64_t kTokens = 32;

/// Blocks that one thread takes through a row side by side, so that what it reads of a token is more than one line.
constexpr int64_t kSlab = 4;

/// What a token has besides states.
struct Token {
  Vec delta, delta_u, y;
};

/// h = e^(Delta A) h + Delta u B and y += C h, S states through some tokens.
template <int S, typename Power>
inline ALWAYS_INLINE void advance(const Power& power, const Vec* A, const StateRows& rows, int64_t count, Token* tokens,
                                  Vec* h) {
  Vec state[S];
  for (int s = 0; s < S; s++) state[s] = h[s];
  for (int64_t t = 0; t < count; t++) {
    Token& token = tokens[t];
    const float* const B = rows.B + t * rows.B_pitch;
    const float* const C = rows.C + t * rows.C_pitch;
    Vec y = token.y;
    for (int s = 0; s < S; s++) {
      state[s] = power(token.delta * A[s]) * state[s] + token.delta_u * splat(B[s]);
      y += splat(C[s]) * state[s];
    }
    token.y = y;
  }
  for (int s = 0; s < S; s++) h[s] = state[s];
}

/// One block of channels; A (times log2 e) and h are (kVectors, N), `most` is the largest |A|.
struct Work {
  Block block;
  Channels D, bias, most;
  Vec *A, *h;
};

class Forward {
 public:
  Forward(const SelectiveScan& scan, const ScanRows& y, bool softplus_delta)
      : scan_(scan), y_(y), softplus_(softplus_delta), n_(scan.states) {}

  /// Tokens row .. row + count, at most kTokens, of which none but the first begins a sequence.
  void run(const Work& work, int64_t group, int64_t row, int64_t count) const {
    Token tokens[kVectors][kTokens];
    const bool within = prepare(work, row, count, tokens);
    const StateRows rows(scan_, row, group);
    for (int v = 0; v < kVectors; v++) {
      each_states(n_, [&](auto states, int64_t i) ALWAYS_INLINE {
        Vec *const A = work.A + v * n_ + i, *const h = work.h + v * n_ + i;
        if (within) {
          advance<states>(exp2_within, A, rows.from(i), count, tokens[v], h);
        } else {
          advance<states>(exp2, A, rows.from(i), count, tokens[v], h);
        }
      });
    }
    finish(work, row, count, tokens);
  }

 private:
  /// All but the states; says whether exp2_within does.
  bool prepare(const Work& work, int64_t row, int64_t count, Token (*tokens)[kTokens]) const {
    const Block& block = work.block;
    Reach reach;
    for (int64_t i = 0; i < count; i++) {
      for (const ScanRows& rows : {scan_.u, scan_.delta, scan_.z, y_}) block.prefetch(rows.row(row + i + kTokens));
      const Channels u = block.load(scan_.u.row(row + i)), raw = block.load(scan_.delta.row(row + i));
      for (int v = 0; v < kVectors; v++) {
        Token& token = tokens[v][i];
        const Vec biased = raw[v] + work.bias[v];
        token.delta = softplus_ ? softplus(biased) : biased;
        token.delta_u = token.delta * u[v];
        token.y = work.D[v] * u[v];
        reach.add(token.delta * work.most[v]);
      }
    }
    return reach.within();
  }

  void finish(const Work& work, int64_t row, int64_t count, const Token (*tokens)[kTokens]) const {
    const Block& block = work.block;
    for (int64_t i = 0; i < count; i++) {
      Channels out;
      for (int v = 0; v < kVectors; v++) out[v] = tokens[v][i].y;
      if (scan_.z.data != nullptr) {
        const Channels z = block.load(scan_.z.row(row + i));
        for (int v = 0; v < kVectors; v++) out[v] *= silu(z[v]);
      }
      block.store(y_.row(row + i), out);
    }
  }

  const SelectiveScan& scan_;
  const ScanRows& y_;
  const bool softplus_;
  const int64_t n_;
};

}  // namespace

/// h_t = e^(Delta_t A) h_{t-1} + Delta_t B_t u_t, y_t = (C_t h_t + D u_t) silu(z_t) (arXiv 2312.00752, equations 2a and 2b).
Error selectiveScan(Args args) {
  const SelectiveScan scan(args);
  const ScanRows y(args.view(), 1), final_state(args.view(), 2), saved(args.view(), 2);
  const bool softplus_delta = args.flag();
  const int64_t chunk_size = args.integer();
  const int64_t n = scan.states, chunks = (scan.length + chunk_size - 1) / chunk_size;
  const int64_t slabs = (scan.group_size() + kSlab * kBlock - 1) / (kSlab * kBlock);
  const Forward forward(scan, y, softplus_delta);
  std::atomic<bool> failed{false};
  parallel_for(scan.batch * scan.groups * slabs, 1, [&](int64_t begin, int64_t end) {
    Vec* const memory = scratch<Vec>(2 * n * kSlab * kVectors);
    if (memory == nullptr) {
      failed = true;
      return;
    }
    for (int64_t piece = begin; piece < end; piece++) {
      const int64_t b = piece / (scan.groups * slabs), group = piece / slabs % scan.groups;
      const int64_t first = b * scan.length, length = scan.row_end(b);
      Work slab[kSlab];
      int64_t blocks = 0;
      for (; blocks < kSlab; blocks++) {
        Work& work = slab[blocks];
        work.block = scan.block(group, piece % slabs, kSlab * kBlock, blocks * kBlock);
        if (work.block.count == 0) break;
        work.A = memory + 2 * blocks * n * kVectors;
        work.h = work.A + n * kVectors;
        const float* const initial = scan.initial_state.as<float>();
        work.block.load_states(scan.A.as<float>(), n, work.A, kLog2E);
        work.block.load_states(initial == nullptr ? nullptr : initial + b * scan.channels * n, n, work.h);
        work.D = work.block.load(scan.D.as<float>());
        work.bias = work.block.load(scan.delta_bias.as<float>());
        work.most = largest(work.A, n);
      }
      for (int64_t t = 0, count; t < length; t += count) {
        for (count = 1; count < kTokens && t + count < length; count++) {
          if ((t + count) % chunk_size == 0 || scan.restarts(b, t + count)) break;
        }
        for (int64_t k = 0; k < blocks; k++) {
          const Work& work = slab[k];
          if (t % chunk_size == 0) work.block.store_states(saved.row(b * chunks + t / chunk_size), n, work.h);
          if (scan.restarts(b, t)) work.block.load_states(nullptr, n, work.h);
          forward.run(work, group, first + t, count);
        }
      }
      for (int64_t k = 0; k < blocks; k++) {
        const Work& work = slab[k];
        y.clear(first + length, first + scan.length, work.block);
        for (int64_t chunk = (length + chunk_size - 1) / chunk_size; chunk < chunks; chunk++) {
          work.block.store_states(saved.row(b * chunks + chunk), n, work.h);
        }
        work.block.store_states(final_state.row(b), n, work.h);
      }
    }
  });
  return failed ? fail("out of memory for the states of a selective scan") : nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
