// Layer: CUDA kernels. LayerNorm and its gradients: one element at a time, read again from the cache. Formulas: the reference.
// Knows no shape rule.

#include "norm_rows.cuh"

template <typename T>
__device__ __forceinline__ void layer_norm(const T* x, const T* weight, const T* bias, T* y, float* mean, float* rstd,
                                           int rows, int width, long long x_pitch, long long y_pitch, float eps, int team) {
  __shared__ float scratch[32];
  const int row = blockIdx.x * (kThreads / team) + threadIdx.x / team;
  const int member = threadIdx.x % team;
  if (row >= rows) return;
  x += row * x_pitch;
  // Sums are of differences from the first element, which are small where all elements are far from 0.
  const float near = to_float(x[0]);
  float sum = 0.0f;
  for (int c = member; c < width; c += team) sum += to_float(x[c]) - near;
  const float middle = team_sum(sum, team, scratch) / width;
  float squares = 0.0f;
  for (int c = member; c < width; c += team) {
    const float d = to_float(x[c]) - near - middle;
    squares += d * d;
  }
  const float r = 1.0f / sqrtf(team_sum(squares, team, scratch) / width + eps);
  if (member == 0) {
    mean[row] = near + middle;
    rstd[row] = r;
  }
  for (int c = member; c < width; c += team) {
    const float n = (to_float(x[c]) - near - middle) * r;
    y[row * y_pitch + c] = from_float<T>(to_float(weight[c]) * n + (bias != nullptr ? to_float(bias[c]) : 0.0f));
  }
}

/// parts: (blocks, 2 * width): what the blocks sum of dweight, then of dbias.
template <typename T>
__device__ __forceinline__ void layer_norm_backward(const T* x, const T* weight, const float* mean, const float* rstd,
                                                    const T* dy, T* dx, float* parts, int rows, int width,
                                                    long long x_pitch, long long dy_pitch, long long dx_pitch, int team) {
  extern __shared__ float sums[];
  __shared__ float scratch[32];
  const int teams = kThreads / team, own = threadIdx.x / team, member = threadIdx.x % team;
  float* const dw = sums + own * width;
  float* const db = sums + (teams + own) * width;
  if (parts != nullptr)
    for (int c = member; c < width; c += team) dw[c] = db[c] = 0.0f;
  for (int row = blockIdx.x * teams + own; row < rows; row += gridDim.x * teams) {
    const float middle = mean[row], r = rstd[row];
    float sum_g = 0.0f, sum_gn = 0.0f;
    for (int c = member; c < width; c += team) {
      const float n = (to_float(x[row * x_pitch + c]) - middle) * r;
      const float d = to_float(dy[row * dy_pitch + c]);
      const float g = to_float(weight[c]) * d;
      if (parts != nullptr) dw[c] += d * n, db[c] += d;
      sum_g += g;
      sum_gn += g * n;
    }
    const float g_mean = team_sum(sum_g, team, scratch) / width;
    const float gn_mean = team_sum(sum_gn, team, scratch) / width;
    if (dx == nullptr) continue;
    for (int c = member; c < width; c += team) {
      const float n = (to_float(x[row * x_pitch + c]) - middle) * r;
      const float g = to_float(weight[c]) * to_float(dy[row * dy_pitch + c]);
      dx[row * dx_pitch + c] = from_float<T>(r * (g - g_mean - n * gn_mean));
    }
  }
  if (parts == nullptr) return;
  store_parts(sums, parts, width, 2 * width, 0, teams);
  store_parts(sums + teams * width, parts, width, 2 * width, width, teams);
}

#define DIFFMAMBA_LAYER(NAME, T)                                                                                      \
  extern "C" __global__ void layer_norm_##NAME(const T* x, const T* weight, const T* bias, T* y, float* mean,         \
                                               float* rstd, int rows, int width, long long x_pitch,                   \
                                               long long y_pitch, float eps, int team) {                              \
    layer_norm(x, weight, bias, y, mean, rstd, rows, width, x_pitch, y_pitch, eps, team);                             \
  }                                                                                                                   \
  extern "C" __global__ void layer_norm_backward_##NAME(                                                              \
      const T* x, const T* weight, const float* mean, const float* rstd, const T* dy, T* dx, float* parts, int rows,  \
      int width, long long x_pitch, long long dy_pitch, long long dx_pitch, int team) {                               \
    layer_norm_backward(x, weight, mean, rstd, dy, dx, parts, rows, width, x_pitch, dy_pitch, dx_pitch, team);        \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_LAYER)
