// What the backward pass of the Mamba-2 scan writes, adds up and computes with: gradients, sums over rows and parts, and the
// memory of a unit of work.
// Knows sizes and sums. Knows no gradient's formula.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "ssd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace ssd {

struct Gradients {
  View states, dy, dfinalState;
  View dx, ddt, dA, dB, dC, dD, dz, ddtBias, dinitialState;

  explicit Gradients(Args& args)
      : states(args.view()),
        dy(args.view()),
        dfinalState(args.view()),
        dx(args.view()),
        ddt(args.view()),
        dA(args.view()),
        dB(args.view()),
        dC(args.view()),
        dD(args.view()),
        dz(args.view()),
        ddtBias(args.view()),
        dinitialState(args.view()) {}
};

/// Gradients that are summed over a row's tokens, per row and head: dA, ddtBias, then dD by channel.
struct Partials {
  float* memory;
  int64_t heads, headDim;
  int64_t size() const { return 2 + headDim; }
  float* at(int64_t b, int64_t h) const { return memory + (b * heads + h) * size(); }
};

/// dB or dC: in place, or, where parts of a group have each a share of it, shares that are added up afterwards.
struct Shared {
  const View& view;
  float* shares;
  int64_t parts, size;

  TokenRows rows(const Inputs& in, int64_t b, int64_t t, int64_t group, int64_t part) const {
    const int64_t N = in.state;
    if (shares == nullptr) return {view, 2, in.length, b, t, group * N};
    const int64_t pitch = in.groups * N;
    return {shares + part * size + (b * in.length + t) * pitch + group * N, pitch};
  }

  /// The view's rows, from the shares, in order.
  void add_up(const Inputs& in) const {
    if (shares == nullptr || !view) return;
    const int64_t width = in.groups * in.state;
    parallel_for(in.batch * in.length, 1 + (1 << 14) / (width * parts), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        float* const to = view.as<float>() + row * view.pitch(2);
        const float* const from = shares + row * width;
        each_vector(width, [&](auto lanes, int64_t i, int) {
          Vec total = lanes.load(from + i);
          for (int64_t part = 1; part < parts; part++) total += lanes.load(from + part * size + i);
          lanes.store(to + i, total);
        });
      }
    });
  }
};

/// What a unit of work computes with. Matrices of the name of a product's right factor are panels.
struct Work {
  Decays decays;
  /// C B^T, its transpose, and W summed over heads; by rows of `pitch`.
  float *cb, *bc, *w;
  /// B^T, then B and C, of the group.
  float *b_transposed, *b_panels, *c_panels;
  /// Of a head: e^{e_J - a_j} X_j and its transpose, e^{a_i - e_I} g_i; g and the output before the gate, by rows.
  float *x, *xt, *g_scaled, *g, *y;
  /// Its states: S (headDim x state), and S^T where the gate needs it; dS, and of every head dS^T.
  float *s, *st, *ds, *dst;
  /// dB and dC, panels of (tokens x state), summed over heads.
  float *db, *dc;
  /// One vector a token: parts of da_i, and of x_i . dX_i. Per token: the products of decays of a row's block, sums by column.
  float *balance, *inner, *rho, *by_column, *one;
  double *da, *xdx;
  Term* terms;
  int64_t pitch;

  Work(Workspace& memory, const Inputs& in, int64_t heads, int64_t most, int64_t pitch)
      : decays([&](int arrays) { return memory.take(arrays * pitch); }), pitch(pitch) {
    const int64_t N = in.state, P = in.headDim, wide_n = whole_panels(N), wide_p = whole_panels(P);
    for (float** square : {&cb, &bc, &w}) *square = memory.take(pitch * pitch);
    b_transposed = memory.take(N * pitch);
    for (float** tokens : {&b_panels, &c_panels, &db, &dc}) *tokens = memory.take(most * wide_n);
    for (float** tokens : {&x, &g_scaled, &g, &y}) *tokens = memory.take(most * wide_p);
    xt = memory.take(P * pitch);
    for (float** state : {&s, &ds}) *state = memory.take(P * wide_n);
    st = memory.take(N * wide_p);
    dst = memory.take(heads * N * wide_p);
    for (float** vectors : {&balance, &inner}) *vectors = memory.take(most * kLanes);
    for (float** row : {&rho, &by_column, &one}) *row = memory.take(pitch);
    for (double** row : {&da, &xdx}) *row = reinterpret_cast<double*>(memory.take(2 * pitch));
    terms = memory.take_terms(std::max(most, panels_of(P)));
  }

  static int64_t room(const Inputs& in, int64_t heads, int64_t most, int64_t pitch) {
    const int64_t N = in.state, P = in.headDim, wide_n = whole_panels(N), wide_p = whole_panels(P);
    return (3 * pitch + N + P + Decays::kArrays + 7) * pitch + 4 * most * (wide_n + wide_p) + 2 * P * wide_n +
           (heads + 1) * N * wide_p + 2 * most * kLanes + Workspace::floats_of_terms(std::max(most, panels_of(P))) + 32 * 16;
  }
};

/// The gradients of A, dtBias and D: sums over the rows, in order.
inline void sum_rows(const Inputs& in, const Gradients& out, const Partials& partials) {
  for (int64_t h = 0; h < in.heads; h++) {
    double dA = 0, ddtBias = 0, dD = 0;
    for (int64_t p = 0; p < in.headDim; p++) {
      double channel = 0;
      for (int64_t b = 0; b < in.batch; b++) channel += partials.at(b, h)[2 + p];
      dD += channel;
      if (out.dD && in.D.rank == 2) out.dD.as<float>()[h * in.headDim + p] = static_cast<float>(channel);
    }
    for (int64_t b = 0; b < in.batch; b++) {
      dA += partials.at(b, h)[0];
      ddtBias += partials.at(b, h)[1];
    }
    if (out.dA) out.dA.as<float>()[h] = static_cast<float>(dA);
    if (out.ddtBias) out.ddtBias.as<float>()[h] = static_cast<float>(ddtBias);
    if (out.dD && in.D.rank != 2) out.dD.as<float>()[h] = static_cast<float>(dD);
  }
}

}  // namespace ssd
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
