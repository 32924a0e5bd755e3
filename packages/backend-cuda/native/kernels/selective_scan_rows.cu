// Layer: CUDA kernels. The selective scan of one token of many rows, of a state of 16: a warp has eight channels of four rows, whose states
// are on their way at the same time, while what the rows share is read once. The arithmetic and the order of sums are those of
// selective_scan_step.cuh. With it may go the product whose rows are the steps, in the bits of `matmul_shallow`. Knows the scan's layouts.

#include "selective_scan_step.cuh"
#include "token_product.cuh"

constexpr int kScanRows = 4;

/// Whole vectors everywhere; no packing, no padding, no saved states. Blocks: as in `selective_scan_step`, and four rows along y.
/// make(row, channel): a token's step before the bias, for the row of four and the channel of eight that are the lane's.
template <typename T, typename H, typename Make>
__device__ __forceinline__ void selective_scan_rows(const ScanForward& p, int rows, Make make) {
  const ScanSizes& s = p.s;
  const int lane = threadIdx.x % 32, b = blockIdx.y * kScanRows, n = lane / 8 * 4;
  const ScanBlock block(s, blockIdx.x);
  const int channel = block.first + threadIdx.x / 32 * 8 + lane % 8, at = min(channel, block.end - 1);
  const bool there = channel < block.end;
  const auto state_of = [&](int row) { return (static_cast<long long>(row) * s.channels + at) * 16; };
  const auto row_of = [&](int r) { return min(b + r, rows - 1); };
  let_next_start();
  // A row's line of a channel is 64 or 32 bytes; each lane has one.
  if (p.initial && there) prefetch_row(static_cast<const H*>(p.initial) + state_of(row_of(lane / 8)), 16 * static_cast<int>(sizeof(H)));
  wait_for_previous();
  const float own = make(b + lane / 8, channel, block.end);
  float h[kScanRows][4], B[kScanRows][4], C[kScanRows][4], u[kScanRows], step[kScanRows], gate[kScanRows], A[4];
#pragma unroll
  for (int r = 0; r < kScanRows; r++) {
    const long long row = row_of(r);
#pragma unroll
    for (int j = 0; j < 4; j++) h[r][j] = 0.0f;
    if (p.initial) load<4>(static_cast<const H*>(p.initial) + state_of(row_of(r)) + n, h[r]);
    u[r] = to_float(*(static_cast<const T*>(p.u) + row * p.u_pitch + at));
    gate[r] = p.z ? to_float(*(static_cast<const T*>(p.z) + row * p.z_pitch + at)) : 0.0f;
    load<4>(static_cast<const T*>(p.B) + row * p.B_pitch + block.group * 16 + n, B[r]);
    load<4>(static_cast<const T*>(p.C) + row * p.C_pitch + block.group * 16 + n, C[r]);
  }
  load<4>(p.A + static_cast<long long>(at) * 16 + n, A);
  const float bias = p.bias ? p.bias[at] : 0.0f, skip = p.D ? p.D[at] : 0.0f;
#pragma unroll
  for (int r = 0; r < kScanRows; r++) step[r] = __shfl_sync(kFullMask, own, 8 * r + lane % 8) + bias;
#pragma unroll
  for (int r = 0; r < kScanRows; r++) {
    if (p.softplus) step[r] = scan_softplus<T>(step[r]);
    const float scaled = step[r] * u[r], until = step[r] * kLog2E;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      h[r][j] = fmaf(exp2_of(until * A[j]), h[r][j], scaled * B[r][j]);
      sum = fmaf(h[r][j], C[r][j], sum);
    }
    sum += __shfl_xor_sync(kFullMask, sum, 8);
    sum += __shfl_xor_sync(kFullMask, sum, 16);
    if (!there || b + r >= rows) continue;
    if (lane < 8) {
      sum = fmaf(skip, u[r], sum);
      if (p.z) sum *= scan_silu(gate[r]);
      *(static_cast<T*>(p.y) + static_cast<long long>(b + r) * p.y_pitch + at) = from_float<T>(sum);
    }
    store<4>(static_cast<H*>(p.final_state) + state_of(b + r) + n, h[r]);
  }
}

struct ProductScanRows {
  Product product;
  ScanForward scan;
};

#define KERNEL(name, T, H)                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kScanThreads, 6) selective_scan_rows_##name(const __grid_constant__ ScanForward p, int rows) { \
    selective_scan_rows<T, H>(p, rows, [&](int row, int channel, int end) {                                                       \
      return row < rows && channel < end ? to_float(*(static_cast<const T*>(p.delta) + static_cast<long long>(row) * p.delta_pitch + channel)) : 0.0f; \
    });                                                                                                                           \
  }                                                                                                                               \
  extern "C" __global__ void __launch_bounds__(kScanThreads, 6) product_scan_rows_##name(const __grid_constant__ ProductScanRows p, int rows) { \
    selective_scan_rows<T, H>(p.scan, rows, [&](int row, int channel, int end) {                                                  \
      return row < rows && channel < end ? write_product<T>(p.product, row, channel, shallow_dot<T>(p.product, row, channel)) : 0.0f; \
    });                                                                                                                           \
  }
DIFFMAMBA_STATES(KERNEL)
