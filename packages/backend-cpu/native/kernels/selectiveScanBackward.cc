// The gradient of the selective scan: chunks from last to first, each chunk's decays and states computed again from the
// state that entered it, then its tokens in reverse. A slab of channels makes one sum of dB and dC over its channels; the
// sums of slabs, and those of batches for dA, dD and ddeltaBias, are added in order.
// Knows views and vectors. Knows no tape.

#include <atomic>

#include "../kernels.h"
#include "../pool.h"
#include "selectiveScan.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Takes arrays one after another from one piece of memory, or counts how much there must be.
template <typename T>
class Arena {
 public:
  explicit Arena(T* memory = nullptr) : memory_(memory) {}
  T* take(int64_t count) {
    T* const from = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += count;
    return from;
  }
  int64_t used() const { return used_; }

 private:
  T* memory_;
  int64_t used_ = 0;
};

/// What a thread keeps of a token and of a block beside the states.
struct Token {
  Channels u, raw, delta, y;
};

/// The memory of a thread: of one chunk of one block, of one chunk of all blocks of the slab, and of each block.
struct Memory {
  Channels *h, *decay, *decayed, *A, *carry, *dA, *dD, *dbias;
  Token* token;
  /// (chunk, N): sums over channels so far, in lanes.
  Vec *dB, *dC;

  Memory(Arena<char>& arena, int64_t blocks, int64_t chunk, int64_t n) {
    const auto channels = [&](int64_t count) {
      return reinterpret_cast<Channels*>(arena.take(count * static_cast<int64_t>(sizeof(Channels))));
    };
    h = channels(n);
    decay = channels(chunk * n);
    decayed = channels(chunk * n);
    A = channels(blocks * n);
    carry = channels(blocks * n);
    dA = channels(blocks * n);
    dD = channels(blocks);
    dbias = channels(blocks);
    token = reinterpret_cast<Token*>(arena.take(chunk * static_cast<int64_t>(sizeof(Token))));
    dB = reinterpret_cast<Vec*>(arena.take(2 * chunk * n * static_cast<int64_t>(sizeof(Vec))));
    dC = dB + chunk * n;
  }
};

struct Outputs {
  ScanRows du, ddelta, dz;
  /// What a slab of a batch writes: rows of G * N, and this batch's sums.
  float *dB, *dC;
  int64_t dB_pitch, dC_pitch;
};

class Gradient {
 public:
  Gradient(const SelectiveScan& scan, const ScanRows& dy, bool softplus_delta)
      : scan_(scan), dy_(dy), softplus_(softplus_delta), n_(scan.states) {}

  /// The chunk's tokens again, `count` from `t` on: their decays, what is left of the state before, and y.
  void forward(const Memory& at, const Channels* A, const Block& block, int64_t b, int64_t group, int64_t t,
               int64_t count) const {
    const Channels D = block.load(scan_.D.as<float>()), bias = block.load(scan_.delta_bias.as<float>());
    for (int64_t i = 0; i < count; i++) {
      const int64_t row = b * scan_.length + t + i;
      if (i + kAhead < count) {
        for (const ScanRows& rows : {scan_.u, scan_.delta}) block.prefetch(rows.row(row + kAhead));
      }
      Token& token = at.token[i];
      token.u = block.load(scan_.u.row(row));
      token.raw = block.load(scan_.delta.row(row));
      Channels delta_u;
      for (int v = 0; v < kVectors; v++) {
        token.raw[v] += bias[v];
        token.delta[v] = softplus_ ? softplus(token.raw[v]) : token.raw[v];
        delta_u[v] = token.delta[v] * token.u[v];
        token.y[v] = D[v] * token.u[v];
      }
      const float* const B = scan_.B.row(row) + group * n_;
      const float* const C = scan_.C.row(row) + group * n_;
      Channels* const decay = at.decay + i * n_;
      Channels* const decayed = at.decayed + i * n_;
      if (scan_.restarts(b, t + i)) {
        memset(static_cast<void*>(decay), 0, static_cast<size_t>(n_) * sizeof(Channels));
        memset(static_cast<void*>(decayed), 0, static_cast<size_t>(n_) * sizeof(Channels));
        for (int64_t k = 0; k < n_; k++) {
          for (int v = 0; v < kVectors; v++) {
            at.h[k][v] = delta_u[v] * splat(B[k]);
            token.y[v] += splat(C[k]) * at.h[k][v];
          }
        }
        continue;
      }
      const Channels delta = token.delta;
      Channels y = token.y;
      for (int64_t k = 0; k < n_; k++) {
        const Vec Bk = splat(B[k]), Ck = splat(C[k]);
        for (int v = 0; v < kVectors; v++) {
          const Vec alpha = exp2(delta[v] * A[k][v]);
          const Vec left = alpha * at.h[k][v];
          const Vec h = left + delta_u[v] * Bk;
          decay[k][v] = alpha;
          decayed[k][v] = left;
          at.h[k][v] = h;
          y[v] += Ck * h;
        }
      }
      token.y = y;
    }
  }

  /// The same tokens in reverse. `carry` is what the token after them hands back.
  void backward(const Memory& at, int64_t which, const Block& block, int64_t b, int64_t group, int64_t t, int64_t count,
                const Outputs& out) const {
    const Channels D = block.load(scan_.D.as<float>());
    const Channels* const A = at.A + which * n_;
    Channels* const carry = at.carry + which * n_;
    Channels* const dA = at.dA + which * n_;
    const Vec one = splat(1), ln2 = splat(kLn2);
    Channels dD = at.dD[which], dbias = at.dbias[which];
    for (int64_t i = count - 1; i >= 0; i--) {
      const int64_t row = b * scan_.length + t + i;
      if (i >= kAhead) {
        for (const ScanRows& rows : {dy_, scan_.z, out.dz, out.du, out.ddelta}) block.prefetch(rows.row(row - kAhead));
      }
      const Token& token = at.token[i];
      const Channels u = token.u, delta = token.delta;
      Channels dy = block.load(dy_.row(row));
      if (scan_.z.data != nullptr) {
        const Channels z = block.load(scan_.z.row(row));
        Channels dz;
        for (int v = 0; v < kVectors; v++) {
          const Vec s = sigmoid(z[v]);
          dz[v] = dy[v] * token.y[v] * s * (one + z[v] * (one - s));
          dy[v] *= z[v] * s;
        }
        block.store(out.dz.row(row), dz);
      }
      Channels delta_u, gB{}, ddelta{};
      for (int v = 0; v < kVectors; v++) delta_u[v] = delta[v] * u[v];
      const float* const B = scan_.B.row(row) + group * n_;
      const float* const C = scan_.C.row(row) + group * n_;
      const Channels* const decay = at.decay + i * n_;
      const Channels* const decayed = at.decayed + i * n_;
      Vec* const dB = at.dB + i * n_;
      Vec* const dC = at.dC + i * n_;
      for (int64_t k = 0; k < n_; k++) {
        const Vec Bk = splat(B[k]), Ck = splat(C[k]);
        Vec to_B = dB[k], to_C = dC[k];
        for (int v = 0; v < kVectors; v++) {
          const Vec left = decayed[k][v];
          const Vec g = Ck * dy[v] + carry[k][v];
          const Vec product = g * left;
          to_C += dy[v] * (left + delta_u[v] * Bk);
          to_B += g * delta_u[v];
          gB[v] += g * Bk;
          ddelta[v] += product * A[k][v];
          dA[k][v] += product * delta[v];
          carry[k][v] = decay[k][v] * g;
        }
        dB[k] = to_B;
        dC[k] = to_C;
      }
      Channels du;
      for (int v = 0; v < kVectors; v++) {
        du[v] = D[v] * dy[v] + gB[v] * delta[v];
        ddelta[v] = ddelta[v] * ln2 + gB[v] * u[v];
        if (softplus_) ddelta[v] *= sigmoid(token.raw[v]);
        dD[v] += dy[v] * u[v];
        dbias[v] += ddelta[v];
      }
      block.store(out.du.row(row), du);
      block.store(out.ddelta.row(row), ddelta);
    }
    at.dD[which] = dD;
    at.dbias[which] = dbias;
  }

 private:
  const SelectiveScan& scan_;
  const ScanRows& dy_;
  const bool softplus_;
  const int64_t n_;
};

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

  const Gradient gradient(scan, dy, softplus_delta);
  std::atomic<bool> failed{false};
  parallel_for(scan.batch * scan.groups * slabs, 1, [&](int64_t begin, int64_t end) {
    Arena<char> counting;
    Memory(counting, blocks, chunk, n);
    char* const memory = reinterpret_cast<char*>(scratch<Vec>(1 + counting.used() / static_cast<int64_t>(sizeof(Vec))));
    if (memory == nullptr) {
      failed = true;
      return;
    }
    Arena<char> arena(memory);
    const Memory at(arena, blocks, chunk, n);
    for (int64_t piece = begin; piece < end; piece++) {
      const int64_t b = piece / (scan.groups * slabs), group = piece / slabs % scan.groups, slab = piece % slabs;
      const auto block_of = [&](int64_t which) { return scan.block(group, slab, blocks * kBlock, which * kBlock); };
      const int64_t tokens = scan.row_end(b);
      Outputs out{du, ddelta, dz, dB.data, dC.data, dB.pitch, dC.pitch};
      if (slabs > 1) out = {du, ddelta, dz, slab_dB + slab * rows * width, slab_dC + slab * rows * width, width, width};

      for (int64_t which = 0; which < blocks; which++) {
        const Block block = block_of(which);
        block.load_states(scan.A.as<float>(), n, at.A + which * n, kLog2E);
        block.load_states(dfinal.row(b), n, at.carry + which * n);
        block.load_states(nullptr, n, at.dA + which * n);
        at.dD[which] = at.dbias[which] = Channels{};
      }
      for (int64_t k = (tokens + chunk_size - 1) / chunk_size - 1; k >= 0; k--) {
        const int64_t t = k * chunk_size, left = tokens - t, count = left < chunk ? left : chunk;
        memset(static_cast<void*>(at.dB), 0, static_cast<size_t>(2 * chunk * n) * sizeof(Vec));
        for (int64_t which = 0; which < blocks; which++) {
          const Block block = block_of(which);
          if (block.count == 0) continue;
          block.load_states(saved.row(b * chunks + k), n, at.h);
          gradient.forward(at, at.A + which * n, block, b, group, t, count);
          gradient.backward(at, which, block, b, group, t, count, out);
        }
        for (int64_t i = 0; i < count; i++) {
          const int64_t row = b * scan.length + t + i;
          for (int64_t j = 0; j < n; j++) {
            if (out.dB != nullptr) out.dB[row * out.dB_pitch + group * n + j] = sum(at.dB[i * n + j]);
            if (out.dC != nullptr) out.dC[row * out.dC_pitch + group * n + j] = sum(at.dC[i * n + j]);
          }
        }
      }
      float* const to = batch_sums + b * sums;
      for (int64_t which = 0; which < blocks; which++) {
        const Block block = block_of(which);
        if (block.count == 0) continue;
        block.store_states(dinitial.row(b), n, at.carry + which * n);
        block.store_states(to, n, at.dA + which * n);
        block.store(to + scan.channels * n, at.dD[which]);
        block.store(to + scan.channels * (n + 1), at.dbias[which]);
        const int64_t padding = b * scan.length + tokens, last = (b + 1) * scan.length;
        du.clear(padding, last, block);
        ddelta.clear(padding, last, block);
        dz.clear(padding, last, block);
      }
      for (int64_t t = tokens; t < scan.length && slabs == 1; t++) {
        const int64_t row = b * scan.length + t;
        if (out.dB != nullptr) memset(dB.row(row) + group * n, 0, static_cast<size_t>(n) * sizeof(float));
        if (out.dC != nullptr) memset(dC.row(row) + group * n, 0, static_cast<size_t>(n) * sizeof(float));
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
