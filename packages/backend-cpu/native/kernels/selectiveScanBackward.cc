// The gradient of the selective scan: chunks from last to first, each chunk's decays and states computed again from the
// state that entered it, then its tokens in reverse. A slab of channels makes one sum of dB and dC over its channels; the
// sums of slabs, and those of batches for dA, dD and ddeltaBias, are added in order.
// Knows views and vectors. Knows no tape.

#include <atomic>

#include "../kernels.h"
#include "../pool.h"
#include "matmul_quad.h"
#include "selectiveScan.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// What a token has besides states, of one vector of channels. dy is the gradient before the gate; y, gB (the sum of g B)
/// and ddelta are sums over states.
struct Token {
  Vec delta, delta_u, dy, y, gB, ddelta;
};

/// What the states do not need of it: u, the slope of softplus, and dz / y.
struct Edge {
  Vec u, slope, dz;
};

/// Sums over the channels of a slab so far, in lanes.
struct Sums {
  Vec dB, dC;
};

/// Of a state of a vector of channels at a token: what it keeps of the state before, and what it leaves.
struct Trace {
  Vec decay, h;
};

/// One block of channels; A, h (what enters the chunk), carry (what the token after hands back) and dA are (kVectors, N).
struct Work {
  Block block;
  Channels D, bias, most, dD, dbias;
  Vec *A, *h, *carry, *dA;
};

/// The memory of a thread: its slab's blocks, and a chunk of tokens of one of them.
struct Memory {
  Work* slab;
  Token* tokens[kVectors];
  Edge* edges[kVectors];
  Trace* traces;
  /// Of all tokens and states; each_states gives the order.
  Sums* sums;

  static int64_t vectors(int64_t blocks, int64_t chunk, int64_t n) {
    const int64_t of_block = of<Work>(1) + 4 * n * kVectors;
    return blocks * of_block + kVectors * (of<Token>(chunk) + of<Edge>(chunk)) + of<Trace>((chunk + 1) * kStates) +
           of<Sums>(n * chunk);
  }

  Memory(Vec* at, int64_t blocks, int64_t chunk, int64_t n) {
    slab = take<Work>(at, blocks);
    for (int64_t k = 0; k < blocks; k++) {
      for (Vec** states : {&slab[k].A, &slab[k].h, &slab[k].carry, &slab[k].dA}) *states = take<Vec>(at, n * kVectors);
    }
    for (int v = 0; v < kVectors; v++) {
      tokens[v] = take<Token>(at, chunk);
      edges[v] = take<Edge>(at, chunk);
    }
    traces = take<Trace>(at, (chunk + 1) * kStates);
    sums = take<Sums>(at, n * chunk);
  }

 private:
  template <typename T>
  static int64_t of(int64_t count) {
    static_assert(sizeof(T) % sizeof(Vec) == 0, "made of vectors");
    return count * static_cast<int64_t>(sizeof(T) / sizeof(Vec));
  }
  template <typename T>
  static T* take(Vec*& at, int64_t count) {
    T* const from = reinterpret_cast<T*>(at);
    at += of<T>(count);
    return from;
  }
};

/// What some states of a vector of channels read and add to.
struct States {
  const Vec *A, *h;
  Vec *carry, *dA;
  Sums* sums;
};

/// S states through some tokens and back: adds to the tokens' sums and to what `at` names.
template <int S, typename Power>
inline ALWAYS_INLINE void differentiate(const Power& power, const StateRows& rows, int64_t count, Token* tokens,
                                        const States& at, Trace* traces) {
  Vec h[S];
  for (int s = 0; s < S; s++) traces[s].h = h[s] = at.h[s];
  for (int64_t t = 0; t < count; t++) {
    Token& token = tokens[t];
    const float* const B = rows.B + t * rows.B_pitch;
    const float* const C = rows.C + t * rows.C_pitch;
    const Vec delta = token.delta, delta_u = token.delta_u;
    Vec y = token.y;
    for (int s = 0; s < S; s++) {
      Trace& trace = traces[(t + 1) * S + s];
      trace.decay = power(delta * at.A[s]);
      trace.h = h[s] = trace.decay * h[s] + delta_u * splat(B[s]);
      y += splat(C[s]) * h[s];
    }
    token.y = y;
  }
  Vec carry[S], dA[S];
  for (int s = 0; s < S; s++) carry[s] = at.carry[s], dA[s] = at.dA[s];
  for (int64_t t = count - 1; t >= 0; t--) {
    Token& token = tokens[t];
    const float* const B = rows.B + t * rows.B_pitch;
    const float* const C = rows.C + t * rows.C_pitch;
    const Vec delta = token.delta, delta_u = token.delta_u, dy = token.dy;
    Vec gB = token.gB, ddelta = token.ddelta;
    for (int s = 0; s < S; s++) {
      const Trace &before = traces[t * S + s], &after = traces[(t + 1) * S + s];
      Sums& sums = at.sums[t * S + s];
      const Vec g = splat(C[s]) * dy + carry[s];
      sums.dC += dy * after.h;
      sums.dB += g * delta_u;
      gB += g * splat(B[s]);
      carry[s] = after.decay * g;
      const Vec product = carry[s] * before.h;
      ddelta += product * at.A[s];
      dA[s] += product * delta;
    }
    token.gB = gB;
    token.ddelta = ddelta;
  }
  for (int s = 0; s < S; s++) at.carry[s] = carry[s], at.dA[s] = dA[s];
}

struct Outputs {
  ScanRows du, ddelta, dz;
};

class Gradient {
 public:
  Gradient(const SelectiveScan& scan, const ScanRows& dy, const Outputs& out, bool softplus_delta)
      : scan_(scan), dy_(dy), out_(out), softplus_(softplus_delta), n_(scan.states) {}

  /// Tokens row .. row + count, which follow each other, from token `at` of the chunk on.
  void run(const Memory& memory, Work& work, int64_t group, int64_t row, int64_t count, int64_t chunk, int64_t at) const {
    const bool within = prepare(memory, work, row, count);
    const StateRows rows(scan_, row, group);
    for (int v = 0; v < kVectors; v++) {
      each_states(n_, [&](auto states, int64_t i) ALWAYS_INLINE {
        const int64_t k = v * n_ + i;
        const States s{work.A + k, work.h + k, work.carry + k, work.dA + k, memory.sums + i * chunk + at * states};
        if (within) {
          differentiate<states>(exp2_within, rows.from(i), count, memory.tokens[v], s, memory.traces);
        } else {
          differentiate<states>(exp2, rows.from(i), count, memory.tokens[v], s, memory.traces);
        }
      });
    }
    finish(memory, work, row, count);
  }

 private:
  /// All but the states; says whether exp2_within does.
  bool prepare(const Memory& memory, const Work& work, int64_t row, int64_t count) const {
    const Block& block = work.block;
    const Vec one = splat(1);
    Reach reach;
    for (int64_t i = 0; i < count; i++) {
      for (const ScanRows& rows : {scan_.u, scan_.delta, scan_.z, dy_}) block.prefetch(rows.row(row + i - count));
      for (const ScanRows& rows : {out_.dz, out_.du, out_.ddelta}) block.prefetch(rows.row(row + i));
      const Channels u = block.load(scan_.u.row(row + i)), raw = block.load(scan_.delta.row(row + i));
      const Channels dy = block.load(dy_.row(row + i)), z = block.load(scan_.z.row(row + i));
      for (int v = 0; v < kVectors; v++) {
        Token& token = memory.tokens[v][i];
        Edge& edge = memory.edges[v][i];
        const Vec biased = raw[v] + work.bias[v];
        const SoftplusAndSlope positive(biased);
        token.delta = softplus_ ? positive.value : biased;
        edge.slope = softplus_ ? positive.slope : one;
        edge.u = u[v];
        token.delta_u = token.delta * u[v];
        token.y = work.D[v] * u[v];
        token.gB = token.ddelta = Vec{};
        token.dy = dy[v];
        edge.dz = Vec{};
        if (scan_.z.data != nullptr) {
          const Vec s = sigmoid(z[v]);
          edge.dz = dy[v] * s * (one + z[v] * (one - s));
          token.dy *= z[v] * s;
        }
        reach.add(token.delta * work.most[v]);
      }
    }
    return reach.within();
  }

  void finish(const Memory& memory, Work& work, int64_t row, int64_t count) const {
    const Block& block = work.block;
    for (int64_t i = 0; i < count; i++) {
      Channels du, ddelta, dz;
      for (int v = 0; v < kVectors; v++) {
        const Token& token = memory.tokens[v][i];
        const Edge& edge = memory.edges[v][i];
        du[v] = work.D[v] * token.dy + token.gB * token.delta;
        ddelta[v] = (token.ddelta * splat(kLn2) + token.gB * edge.u) * edge.slope;
        dz[v] = edge.dz * token.y;
        work.dD[v] += token.dy * edge.u;
        work.dbias[v] += ddelta[v];
      }
      block.store(out_.du.row(row + i), du);
      block.store(out_.ddelta.row(row + i), ddelta);
      block.store(out_.dz.row(row + i), dz);
    }
  }

  const SelectiveScan& scan_;
  const ScanRows& dy_;
  const Outputs& out_;
  const bool softplus_;
  const int64_t n_;
};

/// Rows of n sums, of the lanes of each token's dB or dC.
void add_lanes(const Sums* sums, Vec Sums::*which, int64_t chunk, int64_t n, int64_t count, float* to, int64_t pitch) {
  each_states(n, [&](auto states, int64_t i) ALWAYS_INLINE {
    for (int64_t t = 0; t < count; t++) {
      const Sums* const at = sums + i * chunk + t * states;
      float* const row = to + t * pitch + i;
      if constexpr (states == kStates) {
        float four[kStates];
        sum_lanes({at[0].*which, at[1].*which, at[2].*which, at[3].*which}, four);
        memcpy(row, four, sizeof four);
      } else {
        for (int s = 0; s < states; s++) row[s] = sum(at[s].*which);
      }
    }
  });
}

/// to = the sum of `count` vectors, `stride` apart, if there is anywhere to write it.
void add_up(const View& to, const float* from, int64_t count, int64_t stride) {
  if (!to) return;
  const int64_t size = to.size();
  for (int64_t i = 0; i < size; i++) {
    double sum = 0;
    for (int64_t k = 0; k < count; k++) sum += static_cast<double>(from[k * stride + i]);
    to.as<float>()[i] = static_cast<float>(sum);
  }
}

/// Each row of `to` is the sum of the slabs' rows, and 0 where it is padding.
void join_slabs(const ScanRows& to, const float* from, int64_t slabs, const SelectiveScan& scan) {
  if (to.data == nullptr) return;
  const int64_t rows = scan.batch * scan.length, width = scan.groups * scan.states;
  parallel_for(rows, 1 + 16384 / (slabs * width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const bool padding = row % scan.length >= scan.row_end(row / scan.length);
      each_vector(width, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
        Vec sum{};
        for (int64_t slab = 0; slab < slabs && !padding; slab++) sum += lanes.load(from + (slab * rows + row) * width + i);
        lanes.store(to.row(row) + i, sum);
      });
    }
  });
}

}  // namespace

/**
 * With g_t = C_t dy_t + e^(Delta_{t+1} A) g_{t+1}, the adjoint of the recurrence, and dy = dout silu(z):
 * dC_t = dy_t h_t and dB_t = g_t Delta_t u_t, summed over the channels of the group; du_t = D dy_t + sum_n g_t Delta_t B_t,
 * dA = sum_t g_t Delta_t e^(Delta_t A) h_{t-1}, dDelta_t = sum_n g_t (B_t u_t + A e^(Delta_t A) h_{t-1}).
 */
Error selectiveScanBackward(Args args) {
  const SelectiveScan scan(args);
  const ScanRows saved(args.view(), 2), dy(args.view(), 1), dfinal(args.view(), 2);
  const ScanRows du(args.view(), 1), ddelta(args.view(), 1);
  const View dA = args.view();
  const ScanRows dB(args.view(), 2), dC(args.view(), 2);
  const View dD = args.view();
  const ScanRows dz(args.view(), 1);
  const View ddelta_bias = args.view();
  const ScanRows dinitial(args.view(), 2);
  const bool softplus_delta = args.flag();
  const int64_t chunk_size = args.integer();

  const int64_t n = scan.states, width = scan.groups * n, rows = scan.batch * scan.length;
  const int64_t chunks = (scan.length + chunk_size - 1) / chunk_size;
  const int64_t chunk = chunk_size < scan.length ? chunk_size : scan.length;
  // A slab is 64 channels, or more of them so that a group has at most 16.
  constexpr int64_t kLeast = 64, kMostSlabs = 16;
  const int64_t share = (scan.group_size() + kMostSlabs - 1) / kMostSlabs;
  const int64_t wanted = ((share > kLeast ? share : kLeast) + kBlock - 1) / kBlock;
  const int64_t least = (scan.group_size() + kBlock - 1) / kBlock;
  const int64_t blocks = wanted < least ? wanted : least;
  const int64_t slabs = (least + blocks - 1) / blocks;

  // A batch's sums: dA, dD, ddeltaBias. A slab's sums: dB, dC, unless one slab has them all.
  const int64_t sums = scan.channels * (n + 2), partial = slabs > 1 ? slabs * rows * width : 0;
  float* const batch_sums = scratch<float>(scan.batch * sums + 2 * partial + 1);
  if (batch_sums == nullptr) return fail("out of memory for partial sums");
  float* const slab_dB = batch_sums + scan.batch * sums;
  float* const slab_dC = slab_dB + partial;

  const Outputs out{du, ddelta, dz};
  const Gradient gradient(scan, dy, out, softplus_delta);
  std::atomic<bool> failed{false};
  parallel_for(scan.batch * scan.groups * slabs, 1, [&](int64_t begin, int64_t end) {
    Vec* const vectors = scratch<Vec>(Memory::vectors(blocks, chunk, n));
    if (vectors == nullptr) {
      failed = true;
      return;
    }
    const Memory memory(vectors, blocks, chunk, n);
    for (int64_t piece = begin; piece < end; piece++) {
      const int64_t b = piece / (scan.groups * slabs), group = piece / slabs % scan.groups, slab = piece % slabs;
      const int64_t first = b * scan.length, length = scan.row_end(b);
      int64_t present = 0;
      for (; present < blocks; present++) {
        Work& work = memory.slab[present];
        work.block = scan.block(group, slab, blocks * kBlock, present * kBlock);
        if (work.block.count == 0) break;
        work.block.load_states(scan.A.as<float>(), n, work.A, kLog2E);
        work.block.load_states(dfinal.row(b), n, work.carry);
        work.block.load_states(nullptr, n, work.dA);
        work.D = work.block.load(scan.D.as<float>());
        work.bias = work.block.load(scan.delta_bias.as<float>());
        work.most = largest(work.A, n);
        work.dD = work.dbias = Channels{};
      }
      for (int64_t k = (length + chunk_size - 1) / chunk_size - 1; k >= 0; k--) {
        const int64_t start = k * chunk_size, left = length - start, count = left < chunk ? left : chunk;
        memset(static_cast<void*>(memory.sums), 0, static_cast<size_t>(n * chunk) * sizeof(Sums));
        for (int64_t which = 0; which < present; which++) {
          Work& work = memory.slab[which];
          // From one restart to the next, the last first: nothing flows across.
          for (int64_t end = start + count, t; end > start; end = t) {
            for (t = end - 1; t > start && !scan.restarts(b, t);) t--;
            const bool restarts = scan.restarts(b, t);
            work.block.load_states(restarts ? nullptr : saved.row(b * chunks + k), n, work.h);
            gradient.run(memory, work, group, first + t, end - t, chunk, t - start);
            if (restarts) work.block.load_states(nullptr, n, work.carry);
          }
        }
        const int64_t row = first + start;
        if (slabs > 1) {
          const int64_t at = (slab * rows + row) * width + group * n;
          add_lanes(memory.sums, &Sums::dB, chunk, n, count, slab_dB + at, width);
          add_lanes(memory.sums, &Sums::dC, chunk, n, count, slab_dC + at, width);
        } else {
          if (dB.data != nullptr) add_lanes(memory.sums, &Sums::dB, chunk, n, count, dB.row(row) + group * n, dB.pitch);
          if (dC.data != nullptr) add_lanes(memory.sums, &Sums::dC, chunk, n, count, dC.row(row) + group * n, dC.pitch);
        }
      }
      float* const to = batch_sums + b * sums;
      for (int64_t which = 0; which < present; which++) {
        const Work& work = memory.slab[which];
        work.block.store_states(dinitial.row(b), n, work.carry);
        work.block.store_states(to, n, work.dA);
        work.block.store(to + scan.channels * n, work.dD);
        work.block.store(to + scan.channels * (n + 1), work.dbias);
        for (const ScanRows& padding : {du, ddelta, dz}) padding.clear(first + length, first + scan.length, work.block);
      }
      for (int64_t row = first + length; row < first + scan.length && slabs == 1; row++) {
        if (dB.data != nullptr) memset(dB.row(row) + group * n, 0, static_cast<size_t>(n) * sizeof(float));
        if (dC.data != nullptr) memset(dC.row(row) + group * n, 0, static_cast<size_t>(n) * sizeof(float));
      }
    }
  });
  if (failed) return fail("out of memory for the states of a selective scan");
  if (slabs > 1) {
    join_slabs(dB, slab_dB, slabs, scan);
    join_slabs(dC, slab_dC, slabs, scan);
  }
  add_up(dA, batch_sums, scan.batch, sums);
  add_up(dD, batch_sums + scan.channels * n, scan.batch, sums);
  add_up(ddelta_bias, batch_sums + scan.channels * (n + 1), scan.batch, sums);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
