// The kernels of the Mamba-2 scan as the host side of the backend launches them, by type and tile, over device memory of one case.
// Knows cases and src/kernels/ssdPlan.ts's rules. Checks nothing.
#pragma once

#define DIFFMAMBA_ALL_TILES
#include "../kernels/ssd_small.cu"
#undef KERNELS
#include "../kernels/ssd_forward.cu"
#undef KERNEL
#undef HALVES
#include "../kernels/ssd_backward.cu"
#include "ssd_reference.h"

constexpr int kParts = 4;

struct Plan {
  SsdSizes s;
  int Q, N, tiles, blocks, chunk_tiles;
  size_t forward_bytes, backward_bytes;
};

template <typename T>
Plan plan_of(const Case& c) {
  Plan p;
  p.Q = sizeof(T) == 4 || c.small ? 32 : 64;
  p.N = c.N <= 64 ? 64 : c.N <= 128 ? 128 : 256;
  if (sizeof(T) == 2 && p.Q == 32 && p.N == 64) p.N = 128;
  const int chunks = (c.L + c.chunk - 1) / c.chunk, per = (std::min(c.chunk, c.L) + p.Q - 1) / p.Q;
  const int several = c.P % 16 == 0 && p.Q % c.P == 0 && c.P < p.Q && c.H / c.G % (p.Q / c.P) == 0 ? p.Q / c.P : 1;
  p.s = {c.L, c.H, c.P, c.N, c.G, c.chunk, chunks, per, several, several > 1 ? 1 : (c.P + p.Q - 1) / p.Q};
  p.tiles = chunks * per;
  p.blocks = c.H / several * p.s.blocks_per_head;
  return p;
}

template <typename T> constexpr const char* kName = "f32";
template <> constexpr const char* kName<bf16> = "bf16";
template <> constexpr const char* kName<f16> = "f16";

typedef void (*ForwardKernel)(SsdForward);
typedef void (*BackwardKernel)(SsdBackward);
template <typename T, int N, int Q>
struct Made;
#define MADE(name, T, N, Q)                                                                                            \
  template <>                                                                                                          \
  struct Made<T, N, Q> {                                                                                               \
    static void get(ForwardKernel* f, BackwardKernel* b, size_t* fb, size_t* bb) {                                     \
      *f = ssd_forward_##name##_##N##_##Q;                                                                             \
      *b = ssd_backward_##name##_##N##_##Q;                                                                            \
      *fb = sizeof(SsdForwardShared<T, N, Q>);                                                                         \
      *bb = sizeof(SsdBackwardShared<T, N, Q>);                                                                        \
    }                                                                                                                  \
  };
MADE(bf16, bf16, 64, 64) MADE(bf16, bf16, 128, 64) MADE(bf16, bf16, 256, 64) MADE(bf16, bf16, 128, 32) MADE(bf16, bf16, 256, 32)
MADE(f16, f16, 64, 64) MADE(f16, f16, 128, 64) MADE(f16, f16, 256, 64) MADE(f16, f16, 128, 32) MADE(f16, f16, 256, 32)
MADE(f32, f32, 64, 32) MADE(f32, f32, 128, 32) MADE(f32, f32, 256, 32)

template <typename T>
void find(const Plan& p, ForwardKernel* f, BackwardKernel* b, size_t* fb, size_t* bb) {
  if constexpr (sizeof(T) == 2) {
    if (p.Q == 64 && p.N == 64) Made<T, 64, 64>::get(f, b, fb, bb);
    if (p.Q == 64 && p.N == 128) Made<T, 128, 64>::get(f, b, fb, bb);
    if (p.Q == 64 && p.N == 256) Made<T, 256, 64>::get(f, b, fb, bb);
    if (p.Q == 32 && p.N == 128) Made<T, 128, 32>::get(f, b, fb, bb);
    if (p.Q == 32 && p.N == 256) Made<T, 256, 32>::get(f, b, fb, bb);
  } else {
    if (p.N == 64) Made<T, 64, 32>::get(f, b, fb, bb);
    if (p.N == 128) Made<T, 128, 32>::get(f, b, fb, bb);
    if (p.N == 256) Made<T, 256, 32>::get(f, b, fb, bb);
  }
  *bb += p.s.heads_per_block * (p.Q == 64 ? sizeof(SsdBackwardHead<64>) : sizeof(SsdBackwardHead<32>));
  CHECK(cudaFuncSetAttribute(*f, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(*fb)));
  CHECK(cudaFuncSetAttribute(*b, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(*bb)));
}

#define BY_TYPE(kernel) (sizeof(T) == 4 ? (void*)kernel##_f32 : std::is_same<T, bf16>::value ? (void*)kernel##_bf16 : (void*)kernel##_f16)
#define BY_TYPE_Q(kernel, Q)                                                                                     \
  (sizeof(T) == 4 ? (Q == 64 ? (void*)kernel##_f32_64 : (void*)kernel##_f32_32)                                  \
                  : std::is_same<T, bf16>::value ? (Q == 64 ? (void*)kernel##_bf16_64 : (void*)kernel##_bf16_32) \
                                                 : (Q == 64 ? (void*)kernel##_f16_64 : (void*)kernel##_f16_32))

template <typename P>
void run(void* kernel, dim3 grid, int block, P p, size_t shared = 0) {
  if (grid.x * grid.y * grid.z == 0) return;
  void* args[] = {&p};
  CHECK(cudaLaunchKernel(kernel, grid, dim3(block), args, shared, 0));
}

/// Device memory of one case and the launches over it, as the host side of the backend makes them.
template <typename T>
struct Scan {
  const Case& c;
  const Rows r;
  const Plan plan;
  ForwardKernel forward_kernel;
  BackwardKernel backward_kernel;
  size_t forward_bytes, backward_bytes;
  Memory rows, A, D, bias, initial, dfinal, dy, seq, lengths;
  Memory steps, sums, restarts, y, states, final_state, fine, partial, gradients, dsums, by_row, dD_rows, dA, dbias, dD, dinitial, gated, open;

  explicit Scan(const Case& c) : c(c), r(c), plan(plan_of<T>(c)) {
    find<T>(plan, &forward_kernel, &backward_kernel, &forward_bytes, &backward_bytes);
  }
  const T* input(int offset) const { return rows.as<T>() + offset; }
  T* gradient(int offset) const { return gradients.as<T>() + offset; }

  void put(const Host& h) { put_inputs<T>(*this, h); }
  void allocate(bool backward) {
    const size_t width = static_cast<size_t>(c.H) * c.P, tokens = static_cast<size_t>(c.B) * c.L;
    steps.resize(static_cast<size_t>(c.B) * c.H * plan.tiles * plan.Q * 4);
    sums.resize(steps.bytes);
    restarts.resize(static_cast<size_t>(c.B) * plan.tiles * plan.Q * 4);
    y.resize(tokens * width * sizeof(T));
    states.resize(static_cast<size_t>(c.B) * plan.s.chunks * width * c.N * 4);
    final_state.resize(c.B * width * c.N * 4);
    if (!backward) return;
    if (plan.s.per_chunk > 1) fine.resize(static_cast<size_t>(c.B) * plan.tiles * width * plan.N * sizeof(T));
    partial.resize(static_cast<size_t>(c.B) * plan.tiles * plan.blocks * 2 * plan.Q * plan.N * sizeof(T));
    gradients.resize(tokens * r.pitch * sizeof(T));
    dsums.resize(2 * static_cast<size_t>(c.B) * plan.s.blocks_per_head * c.H * plan.tiles * plan.Q * 4);
    by_row.resize(2 * c.B * kParts * c.H * 4);
    dD_rows.resize(c.B * width * 4);
    dA.resize(c.H * 4);
    dbias.resize(c.H * 4);
    dD.resize((c.by_channel ? width : c.H) * 4);
    dinitial.resize(final_state.bytes);
    if (c.z) gated.resize(y.bytes), open.resize(y.bytes);
  }
  void make_steps() const {
    SsdSteps p = {input(r.dt), A.as<float>(), bias.as<float>(), seq.as<int>(), lengths.as<int>(), steps.as<float>(), sums.as<float>(),
                  c.seq ? restarts.as<int>() : nullptr, r.pitch, plan.s, c.softplus, static_cast<float>(c.low), static_cast<float>(c.high)};
    run(BY_TYPE_Q(ssd_steps, plan.Q), dim3(plan.tiles, c.B), 256, p);
  }
  SsdForward forward_of() const {
    return {input(r.x), input(r.B), input(r.C), c.z ? input(r.z) : nullptr, D.as<float>(), initial.as<float>(), steps.as<float>(), sums.as<float>(),
            c.seq ? restarts.as<int>() : nullptr, lengths.as<int>(), nullptr, y.at, states.as<float>(), nullptr, final_state.as<float>(),
            r.pitch, r.pitch, r.pitch, r.pitch, c.H * c.P, plan.s, c.by_channel, c.aligned};
  }
  void scan(bool save = true) const {
    SsdForward p = forward_of();
    if (!save) p.states = nullptr;
    run((void*)forward_kernel, dim3(plan.blocks, c.B), plan.Q * 4, p, forward_bytes);
  }
  void forward(bool save = true) const {
    make_steps();
    scan(save);
  }
  void again() const {
    SsdForward p = forward_of();
    p.z = nullptr;
    p.start = states.as<float>();
    p.states = p.final_state = nullptr;
    p.fine = plan.s.per_chunk > 1 ? fine.at : nullptr;
    p.y = c.z ? open.at : nullptr;
    if (p.fine || p.y) run((void*)forward_kernel, dim3(plan.blocks, c.B, plan.s.chunks), plan.Q * 4, p, forward_bytes);
    if (c.z) {
      const T *from = dy.as<T>(), *z = input(r.z), *before = open.as<T>();
      T *g = gated.as<T>(), *dz = gradient(r.z);
      const int* ends = lengths.as<int>();
      int width = c.H * c.P, pitch = r.pitch, length = c.L;
      void* args[] = {&from, &z, &before, &g, &dz, &ends, &width, &pitch, &pitch, &length, &width};
      CHECK(cudaLaunchKernel(BY_TYPE(ssd_gate), dim3(c.B * c.L, (width + 255) / 256), dim3(256), args, 0, 0));
    }
  }
  void scan_backward() const {
    const bool saved = plan.s.per_chunk == 1;
    SsdBackward p = {input(r.x), input(r.B), input(r.C), c.z ? gated.at : dy.at, D.as<float>(), steps.as<float>(), sums.as<float>(),
                     c.seq ? restarts.as<int>() : nullptr, lengths.as<int>(), saved ? states.as<float>() : nullptr, saved ? nullptr : fine.at,
                     dfinal.as<float>(), gradient(r.x), partial.at, dsums.as<float>(), dinitial.as<float>(), dD_rows.as<float>(),
                     r.pitch, r.pitch, r.pitch, c.H * c.P, r.pitch, plan.s, c.by_channel, c.aligned};
    run((void*)backward_kernel, dim3(plan.blocks, c.B), plan.Q * 4, p, backward_bytes);
  }
  void share() const {
    SsdShared p = {partial.at, lengths.as<int>(), gradient(r.B), gradient(r.C), r.pitch, r.pitch, plan.s, plan.blocks, plan.N};
    run(BY_TYPE_Q(ssd_shared, plan.Q), dim3(plan.tiles * c.G * 2, (plan.Q * plan.N / 8 + 255) / 256, c.B), 256, p);
  }
  void finish() const {
    SsdFinish p = {input(r.dt), A.as<float>(), bias.as<float>(), lengths.as<int>(), dsums.as<float>(), gradient(r.dt), by_row.as<float>(),
                   r.pitch, r.pitch, plan.s, c.softplus, static_cast<float>(c.low), static_cast<float>(c.high)};
    run(BY_TYPE_Q(ssd_finish, plan.Q), dim3(c.H, c.B, kParts), 256, p);
    ssd_rows<<<c.H, 128>>>(by_row.as<float>(), dD_rows.as<float>(), dA.as<float>(), dbias.as<float>(), dD.as<float>(), c.B, kParts, c.H,
                                               c.P, c.by_channel);
  }
  void backward() const {
    make_steps();
    again();
    scan_backward();
    share();
    finish();
  }
  void step() const {
    SsdStep p = {input(r.x), input(r.dt), A.as<float>(), input(r.B), input(r.C), c.z ? input(r.z) : nullptr, D.as<float>(), bias.as<float>(),
                 initial.as<float>(), seq.as<int>(), lengths.as<int>(), y.at, states.as<float>(), final_state.as<float>(),
                 r.pitch, r.pitch, r.pitch, r.pitch, r.pitch, c.H * c.P, plan.s, c.by_channel, c.softplus, static_cast<float>(c.low), static_cast<float>(c.high)};
    run(BY_TYPE(ssd_step), dim3((c.H * c.P + 15) / 16, c.B), 128, p);
  }
};
