// Layer: CUDA kernels. The gradient of the selective scan: a block walks from a row's last tile of tokens to its first for 32 channels,
// makes the tile's states again from the one that enters it, then goes backwards in time. Knows the states every kScanBack
// tokens. Sums over channels by tensor cores, in a fixed order; over blocks and rows in kernels of their own.
//
// Floor at B 8, L 2048, D 1536, N 16 in bf16: seven arrays of 50 MB, states every 16 tokens and dB, dC by blocks of channels are
// 650 MB, 0.22 ms at 3 TB/s; two exponentials a state and token are 0.22 ms at 1.7 GHz. What bounds it are 140 instructions a
// token for each 128 states, half a millisecond if none ever waited: 442 million with the rows before and after.

#include "selective_scan_backward_parts.cuh"

template <typename T, int S>
__device__ __forceinline__ void selective_scan_backward(const ScanBackward& p) {
  extern __shared__ __align__(16) unsigned char memory[];
  ScanBackwardShared<S>& m = *reinterpret_cast<ScanBackwardShared<S>*>(memory);
  constexpr int N = 4 * S, back = kScanBack<S>, step_group = back < 4 ? 1 : 4;
  const ScanSizes& s = p.s;
  const int b = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const ScanBlock block(s, blockIdx.x);
  const int local = warp * 8 + lane % 8, channel = block.first + local;
  const bool there = channel < block.end;
  const int end = scan_end(s, p.lengths, b), tiles = s.chunks * p.fine_per_chunk;
  // Tiles after the last token hold nothing.
  const int used = (s.chunks - 1) * p.fine_per_chunk + (s.length - (s.chunks - 1) * s.chunk_size + back - 1) / back;
  const long long row0 = static_cast<long long>(b) * s.length;
  // Rows of eight, a token and eight channels a thread: u and delta in the first half of the block, dy and z in the second.
  const bool second = threadIdx.x >= kScanThreads / 2;
  const int token = threadIdx.x % (kScanThreads / 2) / 4, slot = threadIdx.x % 4 * 8, column = block.first + slot;
  const int columns = token < back ? max(min(block.end - column, 8), 0) : 0;
  const long long group_column = static_cast<long long>(block.group) * s.d_state;

  float A[S], carry[S], dA[S];
  load_states<S>(A, p.A + static_cast<long long>(channel) * s.d_state, s.d_state, lane, there);
  const auto state_row = [&](long long index) { return (index * s.channels + channel) * s.d_state; };
  load_states<S>(carry, p.dfinal ? p.dfinal + state_row(b) : nullptr, s.d_state, lane, there && p.dfinal);
#pragma unroll
  for (int i = 0; i < S; i++) {
    A[i] *= kLog2E;
    dA[i] = 0.0f;
  }
  if (threadIdx.x < kScanChannels) {
    const int c = block.first + threadIdx.x;
    m.bias[threadIdx.x] = p.bias && c < block.end ? p.bias[c] : 0.0f;
    m.D[threadIdx.x] = p.D && c < block.end ? p.D[c] : 0.0f;
  }
  __syncthreads();
  float dD[8], dbias[8];
#pragma unroll
  for (int i = 0; i < 8; i++) dD[i] = dbias[i] = 0.0f;
  const auto tokens_of = [&](int tile) { return ScanTokens(s, tile / p.fine_per_chunk, tile % p.fine_per_chunk * back, back, end); };

  Eight<T> one, other, bc;
  float delta_now[8];
  float h[S];
  bool restart = false;
  const auto fetch = [&](int tile) {
    const ScanTokens t = tokens_of(tile);
    const long long row = row0 + t.first + token;
    const int count = token < t.count ? columns : 0;
    if (second) {
      one.load(static_cast<const T*>(p.dy) + row * p.dy_pitch + column, p.dy ? count : 0, p.aligned);
      if (p.z) other.load(static_cast<const T*>(p.z) + row * p.z_pitch + column, count, p.aligned);
    } else {
      one.load(static_cast<const T*>(p.u) + row * p.u_pitch + column, count, p.aligned);
      other.load(static_cast<const T*>(p.delta) + row * p.delta_pitch + column, count, p.aligned);
    }
    if (second) {
      const int v = threadIdx.x - kScanThreads / 2, at = v / (N / 8) % back, n = v % (N / 8) * 8;
      const bool which = v / (N / 8) / back;
      const T* const from = static_cast<const T*>(which ? p.C : p.B) + (row0 + t.first + at) * (which ? p.C_pitch : p.B_pitch) + group_column + n;
      bc.load(from, at < t.count ? s.d_state - n : 0, p.aligned);
    }
    if (p.seq) restart = token < t.count && t.first + token > 0 && p.seq[row] != p.seq[row - 1];
    load_states<S>(h, p.fine + state_row(static_cast<long long>(b) * tiles + tile), s.d_state, lane, there);
  };
  if (tiles > 0) fetch(used - 1);

  for (int tile = tiles > 0 ? used - 1 : -1; tile >= 0; tile--) {
    const ScanTokens t = tokens_of(tile);
    const Eight<T> one_now = one, other_now = other;
    typename ScanBackwardShared<S>::Given& in = m.given[tile % 2];
    if (token < back) {
      float v[8], w[8];
      one.unpack(v);
      other.unpack(w);
      if (second) {
#pragma unroll
        for (int i = 0; i < 8; i++)
          if (p.z) v[i] *= scan_silu(w[i]);
        write_eight(&in.dy[token][slot], v);
      } else {
        float packed[8], bias[8], skip[8];
        read_eight(bias, m.bias + slot);
        read_eight(skip, m.D + slot);
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            float d = w[half * 4 + i] + bias[half * 4 + i];
            if (p.softplus) d = scan_softplus<T>(d);
            if (token >= t.count) d = 0.0f;
            packed[2 * i] = restart ? kRestart : d;
            packed[2 * i + 1] = d * v[half * 4 + i];
            w[half * 4 + i] = d;
          }
          write_eight(&in.steps[token][slot + half * 4].x, packed);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
          v[i] *= skip[i];
          delta_now[i] = w[i];
        }
        write_eight(&in.skip[token][slot], v);
      }
    }
    if (second) {
      const int v = threadIdx.x - kScanThreads / 2, at = v / (N / 8) % back, n = v % (N / 8) * 8;
      float row[8];
      bc.unpack(row);
      write_eight((v / (N / 8) / back ? in.C[at] : in.B[at]) + n, row);
    }
    __syncthreads();

    // Forward again. m.h[k] is the state that token k finds, before any restart at it.
#pragma unroll 1
    for (int from = 0; from < back; from += step_group) {
      float y[step_group];
#pragma unroll
      for (int k = 0; k < step_group; k++) {
        const float2 step = in.steps[from + k][local];
#pragma unroll
        for (int i = 0; i < S; i += 4) {
          m.h[from + k][i / 4][threadIdx.x] = make_float4(h[i], h[i + 1], h[i + 2], h[i + 3]);
          const float4 Bt = *reinterpret_cast<const float4*>(&in.B[from + k][i * 4 + lane / 8 * 4]);
          const float4 Ct = *reinterpret_cast<const float4*>(&in.C[from + k][i * 4 + lane / 8 * 4]);
          h[i] = exp2_of(step.x * A[i]) * h[i] + step.y * Bt.x;
          h[i + 1] = exp2_of(step.x * A[i + 1]) * h[i + 1] + step.y * Bt.y;
          h[i + 2] = exp2_of(step.x * A[i + 2]) * h[i + 2] + step.y * Bt.z;
          h[i + 3] = exp2_of(step.x * A[i + 3]) * h[i + 3] + step.y * Bt.w;
          const float first_term = h[i] * Ct.x;
          y[k] = fmaf(h[i + 3], Ct.w, fmaf(h[i + 2], Ct.z, fmaf(h[i + 1], Ct.y, i == 0 ? first_term : y[k] + first_term)));
        }
      }
      if constexpr (step_group == 4) {
        m.y[from + lane / 8][local] = scatter_sum(y, lane);
      } else {
        y[0] += __shfl_xor_sync(kFullMask, y[0], 8);
        y[0] += __shfl_xor_sync(kFullMask, y[0], 16);
        m.y[from][local] = y[0];
      }
    }
    float after[S];
#pragma unroll
    for (int i = 0; i < S; i++) after[i] = h[i];
    if (tile > 0) fetch(tile - 1);

    // One token backwards: g = C dy + carry. `left` becomes dC's summands dy h_t, `g` dB's, and `sums` those over the states.
    const auto backward = [&](int at, float (&g)[S], float (&left)[S], float& gB, float& dstep) {
      const float2 step = in.steps[at][local];
      const float dy = in.dy[at][local];
#pragma unroll
      for (int i = 0; i < S; i += 4) {
        const float4 B4 = *reinterpret_cast<const float4*>(&in.B[at][i * 4 + lane / 8 * 4]);
        const float4 C4 = *reinterpret_cast<const float4*>(&in.C[at][i * 4 + lane / 8 * 4]);
        const float4 h4 = m.h[at][i / 4][threadIdx.x];
        const float Bt[4] = {B4.x, B4.y, B4.z, B4.w}, Ct[4] = {C4.x, C4.y, C4.z, C4.w}, before[4] = {h4.x, h4.y, h4.z, h4.w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
          const float decay = exp2_of(step.x * A[i + k]);
          const float gk = Ct[k] * dy + carry[i + k];
          const float flow = decay * gk, product = flow * before[k];
          left[i + k] = dy * after[i + k];
          after[i + k] = before[k];
          dstep = i + k == 0 ? product * A[0] : dstep + product * A[i + k];
          dA[i + k] += product * step.x;
          gB = i + k == 0 ? gk * Bt[0] : gB + gk * Bt[k];
          carry[i + k] = flow;
          g[i + k] = gk * step.y;
        }
      }
    };
    if constexpr (S == 4) {
      float sum_B[4][4], sum_C[4][4];
#pragma unroll
      for (int i = 0; i < 16; i++) sum_B[i / 4][i % 4] = sum_C[i / 4][i % 4] = 0.0f;
#pragma unroll 2
      for (int at = back - 2; at >= 0; at -= 2) {
        float g[2][S], left[2][S], v[4];
        backward(at + 1, g[1], left[1], v[2], v[3]);
        backward(at, g[0], left[0], v[0], v[1]);
        const uint32_t one_bits = 0x3f800000u;
        const int row = lane / 4;
        const uint32_t a[4] = {row == at ? one_bits : 0, row + 8 == at ? one_bits : 0, row == at + 1 ? one_bits : 0,
                               row + 8 == at + 1 ? one_bits : 0};
#pragma unroll
        for (int i = 0; i < 4; i++) {
          sum_tf32<T>(sum_B[i], a, g[0][i], g[1][i]);
          sum_tf32<T>(sum_C[i], a, left[0][i], left[1][i]);
        }
        // Lane group k gets sum k of v: the two of the first token, then of the second.
        (lane & 8 ? m.dstep : m.gB)[at + lane / 16][local] = scatter_sum(v, lane);
      }
      // Row of a sum: the token; columns 2 k and 2 k + 1: the two halves of the warp's channels, for states 4 k + i.
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int at = (lane / 4 + half * 8) * 16 + lane % 4 * 4;
        *reinterpret_cast<float4*>(&m.shared[warp][0][at]) =
            make_float4(sum_B[0][2 * half] + sum_B[0][2 * half + 1], sum_B[1][2 * half] + sum_B[1][2 * half + 1],
                        sum_B[2][2 * half] + sum_B[2][2 * half + 1], sum_B[3][2 * half] + sum_B[3][2 * half + 1]);
        *reinterpret_cast<float4*>(&m.shared[warp][1][at]) =
            make_float4(sum_C[0][2 * half] + sum_C[0][2 * half + 1], sum_C[1][2 * half] + sum_C[1][2 * half + 1],
                        sum_C[2][2 * half] + sum_C[2][2 * half + 1], sum_C[3][2 * half] + sum_C[3][2 * half + 1]);
      }
    } else {
#pragma unroll 1
      for (int at = back - 1; at >= 0; at--) {
        float g[S], left[S], gB, dstep;
        backward(at, g, left, gB, dstep);
#pragma unroll
        for (int i = 0; i < S; i++) {
#pragma unroll
          for (int k = 1; k < 8; k <<= 1) {
            g[i] += __shfl_xor_sync(kFullMask, g[i], k);
            left[i] += __shfl_xor_sync(kFullMask, left[i], k);
          }
          if (lane % 8 == 0) {
            m.shared[warp][0][at * N + scan_state(i, lane)] = g[i];
            m.shared[warp][1][at * N + scan_state(i, lane)] = left[i];
          }
        }
#pragma unroll
        for (int k = 8; k < 32; k <<= 1) {
          gB += __shfl_xor_sync(kFullMask, gB, k);
          dstep += __shfl_xor_sync(kFullMask, dstep, k);
        }
        m.gB[at][local] = gB;
        m.dstep[at][local] = dstep;
      }
    }
    __syncthreads();

    if (p.partial) {
      const int which = threadIdx.x / 64, at = threadIdx.x % 64 * 4;
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const float4 v = *reinterpret_cast<const float4*>(&m.shared[w][which][at]);
        sum.x += v.x;
        sum.y += v.y;
        sum.z += v.z;
        sum.w += v.w;
      }
      float* const to = p.partial + (((static_cast<long long>(b) * tiles + tile) * gridDim.x + blockIdx.x) * 2 + which) * 256 + at;
      *reinterpret_cast<float4*>(to) = sum;
    }
    if (token < t.nominal && columns > 0) {
      const bool real = token < t.count;
      const long long row = row0 + t.first + token;
      float v[8], w[8];
      one_now.unpack(v);
      other_now.unpack(w);
      if (second) {
        if (p.dz) {
          float y[8], of_skip[8];
          read_eight(y, &m.y[token][slot]);
          read_eight(of_skip, &in.skip[token][slot]);
#pragma unroll
          for (int i = 0; i < 8; i++) v[i] = real ? v[i] * (y[i] + of_skip[i]) * scan_silu_gradient(w[i]) : 0.0f;
          store_eight<T>(static_cast<T*>(p.dz) + row * p.dz_pitch + column, v, columns, p.aligned);
        }
      } else {
        float dy[8], gB[8], dstep[8], bias[8], skip[8];
        read_eight(bias, m.bias + slot);
        read_eight(skip, m.D + slot);
        read_eight(dy, &in.dy[token][slot]);
        read_eight(gB, &m.gB[token][slot]);
        read_eight(dstep, &m.dstep[token][slot]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
          float d = dstep[i] * kLn2 + gB[i] * v[i];
          if (p.softplus) d *= scan_sigmoid(w[i] + bias[i]);
          if (!real) d = 0.0f;
          dD[i] += dy[i] * v[i];
          dbias[i] += d;
          v[i] = skip[i] * dy[i] + gB[i] * delta_now[i];
          w[i] = d;
        }
        if (p.du) store_eight<T>(static_cast<T*>(p.du) + row * p.du_pitch + column, v, columns, p.aligned);
        if (p.ddelta) store_eight<T>(static_cast<T*>(p.ddelta) + row * p.ddelta_pitch + column, w, columns, p.aligned);
      }
    }
  }

  if (p.dinitial) store_states<S>(carry, p.dinitial + state_row(b), s.d_state, lane, there);
  if (p.dA) store_states<S>(dA, p.dA + state_row(b), s.d_state, lane, there);
  if (p.by_row) {
    __syncthreads();
    float(*const sums)[ScanBackwardShared<S>::wide] = m.given[0].dy;
    if (!second && token < back) {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        sums[token][slot + i] = dD[i];
        m.y[token][slot + i] = dbias[i];
      }
    }
    __syncthreads();
    if (threadIdx.x < 2 * kScanChannels) {
      const int c = threadIdx.x % kScanChannels, which = threadIdx.x / kScanChannels;
      float sum = 0.0f;
      for (int k = 0; k < back; k++) sum += which ? m.y[k][c] : sums[k][c];
      if (block.first + c < block.end) p.by_row[(static_cast<long long>(which) * gridDim.y + b) * s.channels + block.first + c] = sum;
    }
  }
}

/// dB and dC: the sums over the blocks of a group. A block has a tile of a group, a thread four numbers.
template <typename T, int S>
__device__ __forceinline__ void selective_scan_shared(const float* partial, T* dB, T* dC, const int* lengths, int dB_pitch, int dC_pitch,
                                                      const ScanSizes& s, int fine_per_chunk) {
  constexpr int N = 4 * S, back = kScanBack<S>;
  const int tile = blockIdx.x, group = blockIdx.y, b = blockIdx.z, which = threadIdx.x / 64, at = threadIdx.x % 64 * 4;
  T* const out = which ? dC : dB;
  if (out == nullptr) return;
  const int blocks = s.blocks_per_group * s.groups;
  const float* from = partial + (((static_cast<long long>(b) * gridDim.x + tile) * blocks + group * s.blocks_per_group) * 2 + which) * 256 + at;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
  for (int k = 0; k < s.blocks_per_group; k++) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    from += 512;
    sum.x += v.x;
    sum.y += v.y;
    sum.z += v.z;
    sum.w += v.w;
  }
  const ScanTokens t(s, tile / fine_per_chunk, tile % fine_per_chunk * back, back, scan_end(s, lengths, b));
  const int token = at / N, n = at % N, pitch = which ? dC_pitch : dB_pitch;
  if (token >= t.nominal) return;
  T* const to = out + (static_cast<long long>(b) * s.length + t.first + token) * pitch + group * s.d_state + n;
  const float v[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
  for (int k = 0; k < 4; k++)
    if (n + k < s.d_state) to[k] = from_float<T>(token < t.count ? v[k] : 0.0f);
}

#define KERNEL(name, T, N, S, Blocks)                                                                                                 \
  extern "C" __global__ void __launch_bounds__(kScanThreads, Blocks) selective_scan_backward_##name##_##N(const __grid_constant__ ScanBackward p) { \
    selective_scan_backward<T, S>(p);                                                                                                 \
  }                                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(128) selective_scan_shared_##name##_##N(                                               \
      const float* partial, T* dB, T* dC, const int* lengths, int dB_pitch, int dC_pitch, const ScanSizes s, int fine_per_chunk) {    \
    selective_scan_shared<T, S>(partial, dB, dC, lengths, dB_pitch, dC_pitch, s, fine_per_chunk);                                     \
  }
#define KERNELS(name, T) KERNEL(name, T, 16, 4, 3) KERNEL(name, T, 64, 16, 1) KERNEL(name, T, 256, 64, 1)
DIFFMAMBA_FLOATS(KERNELS)

/// Sums over the rows of a batch: dA (D, N), dD and the bias's gradient (D,). Absent ones are null.
extern "C" __global__ void __launch_bounds__(256) selective_scan_rows(const float* dA_by_row, const float* by_row, float* dA, float* dD, float* dbias,
                                                                      int batch, int channels, int d_state) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, size = channels * d_state;
  if (dA && i < size) {
    float sum = 0.0f;
    for (int b = 0; b < batch; b++) sum += dA_by_row[static_cast<long long>(b) * size + i];
    dA[i] = sum;
  }
  if (i >= channels || !by_row) return;
  float skip = 0.0f, bias = 0.0f;
  for (int b = 0; b < batch; b++) {
    skip += by_row[static_cast<long long>(b) * channels + i];
    bias += by_row[static_cast<long long>(batch + b) * channels + i];
  }
  if (dD) dD[i] = skip;
  if (dbias) dbias[i] = bias;
}
