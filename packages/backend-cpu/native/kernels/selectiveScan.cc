// The selective scan (S6) of Mamba: a block of channels at a time through all of a row's tokens, the states of the block in
// the nearest cache, B and C of a token spread over its lanes.
// Knows views and vectors. Knows no gradient.

#include "selectiveScan.h"

#include <atomic>

#include "../kernels.h"
#include "../pool.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// h = e^(Delta A) h + Delta u B; returns C h + y.
inline ALWAYS_INLINE Channels step(const Channels* A, const float* B, const float* C, int64_t n, const Channels& delta,
                                   const Channels& delta_u, Channels* h, Channels y) {
  for (int64_t i = 0; i < n; i++) {
    const Vec b = splat(B[i]), c = splat(C[i]);
    for (int v = 0; v < kVectors; v++) {
      h[i][v] = exp2(delta[v] * A[i][v]) * h[i][v] + delta_u[v] * b;
      y[v] += c * h[i][v];
    }
  }
  return y;
}

}  // namespace

/// h_t = e^(Delta_t A) h_{t-1} + Delta_t B_t u_t, y_t = (C_t h_t + D u_t) silu(z_t) (arXiv 2312.00752, equations 2a and 2b).
Error selectiveScan(Args args) {
  const SelectiveScan scan(args);
  const ScanRows y(args.view(), 1), final_state(args.view(), 2), saved(args.view(), 2);
  const bool softplus_delta = args.flag();
  const int64_t chunk_size = args.integer();
  const int64_t n = scan.states, chunks = (scan.length + chunk_size - 1) / chunk_size;
  const int64_t blocks = (scan.group_size() + kBlock - 1) / kBlock;
  std::atomic<bool> failed{false};
  parallel_for(scan.batch * scan.groups * blocks, 1, [&](int64_t begin, int64_t end) {
    Channels* const A = scratch<Channels>(2 * n);
    if (A == nullptr) {
      failed = true;
      return;
    }
    Channels* const h = A + n;
    for (int64_t piece = begin; piece < end; piece++) {
      const int64_t b = piece / (scan.groups * blocks), group = piece / blocks % scan.groups;
      const Block block = scan.block(group, piece % blocks, kBlock);
      if (block.count == 0) continue;
      const int64_t first = b * scan.length, tokens = scan.row_end(b);
      const float* const initial = scan.initial_state.as<float>();
      block.load_states(scan.A.as<float>(), n, A, kLog2E);
      block.load_states(initial == nullptr ? nullptr : initial + b * scan.channels * n, n, h);
      const Channels D = block.load(scan.D.as<float>()), bias = block.load(scan.delta_bias.as<float>());
      for (int64_t t = 0; t < tokens; t++) {
        const int64_t row = first + t;
        if (t % chunk_size == 0) block.store_states(saved.row(b * chunks + t / chunk_size), n, h);
        if (scan.restarts(b, t)) memset(static_cast<void*>(h), 0, static_cast<size_t>(n) * sizeof(Channels));
        if (t + kAhead < tokens) {
          for (const ScanRows& rows : {scan.u, scan.delta, scan.z, y}) block.prefetch(rows.row(row + kAhead));
        }
        const Channels u = block.load(scan.u.row(row));
        Channels delta = block.load(scan.delta.row(row)), delta_u, out;
        for (int v = 0; v < kVectors; v++) {
          delta[v] += bias[v];
          if (softplus_delta) delta[v] = softplus(delta[v]);
          delta_u[v] = delta[v] * u[v];
          out[v] = D[v] * u[v];
        }
        out = step(A, scan.B.row(row) + group * n, scan.C.row(row) + group * n, n, delta, delta_u, h, out);
        if (scan.z.data != nullptr) {
          const Channels z = block.load(scan.z.row(row));
          for (int v = 0; v < kVectors; v++) out[v] *= silu(z[v]);
        }
        block.store(y.row(row), out);
      }
      y.clear(first + tokens, first + scan.length, block);
      for (int64_t chunk = (tokens + chunk_size - 1) / chunk_size; chunk < chunks; chunk++) {
        block.store_states(saved.row(b * chunks + chunk), n, h);
      }
      block.store_states(final_state.row(b), n, h);
    }
  });
  return failed ? fail("out of memory for the states of a selective scan") : nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
