// The kernels of the selective scan against plain loops in double precision, on a device; and their times at the sizes of models.
// Build: nvcc -O3 -std=c++17 -Xcompiler -fopenmp -gencode arch=compute_90a,code=sm_90a selective_scan_test.cu -o selective_scan_test
// Run: selective_scan_test [check] [time] [only=PART OF A CASE'S NAME]

#include "../kernels/selective_scan_forward.cu"
#undef KERNELS
#undef KERNEL
#include "../kernels/selective_scan_backward.cu"
#include "ssd_testing.h"

struct Case {
  const char* name;
  int B, L, D, N, G, chunk;
  bool initial = true, dfinal = true, seq = false, lengths = false, skip = true, z = true, bias = true, softplus = true, aligned = true, dy = true;
};

template <typename T> constexpr const char* kName = "f32";
template <> constexpr const char* kName<bf16> = "bf16";
template <> constexpr const char* kName<f16> = "f16";

template <typename T>
struct Kernels {
  void *forward, *step, *backward, *shared;
  size_t forward_bytes, backward_bytes;
};

#define PICK(kernel, N)                                                                                                            \
  (sizeof(T) == 4 ? (void*)kernel##_f32_##N : std::is_same<T, bf16>::value ? (void*)kernel##_bf16_##N : (void*)kernel##_f16_##N)
template <typename T>
Kernels<T> find(int S) {
  Kernels<T> k;
  if (S == 4) k = {PICK(selective_scan, 16), PICK(selective_scan_step, 16), PICK(selective_scan_backward, 16), PICK(selective_scan_shared, 16), sizeof(ScanForwardShared<4>), sizeof(ScanBackwardShared<4>)};
  if (S == 16) k = {PICK(selective_scan, 64), PICK(selective_scan_step, 64), PICK(selective_scan_backward, 64), PICK(selective_scan_shared, 64), sizeof(ScanForwardShared<16>), sizeof(ScanBackwardShared<16>)};
  if (S == 64) k = {PICK(selective_scan, 256), PICK(selective_scan_step, 256), PICK(selective_scan_backward, 256), PICK(selective_scan_shared, 256), sizeof(ScanForwardShared<64>), sizeof(ScanBackwardShared<64>)};
  CHECK(cudaFuncSetAttribute(k.forward, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(k.forward_bytes)));
  CHECK(cudaFuncSetAttribute(k.backward, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(k.backward_bytes)));
  return k;
}

/// Packed rows [u | delta | z | B | C].
struct Rows {
  int u, delta, z, B, C, pitch;
  explicit Rows(const Case& c) {
    const auto up = [&](int n) { return c.aligned ? (n + 7) / 8 * 8 : n; };
    u = c.aligned ? 8 : 1;
    delta = u + up(c.D);
    z = delta + up(c.D);
    B = z + up(c.D);
    C = B + up(c.G * c.N);
    pitch = C + up(c.G * c.N) + (c.aligned ? 8 : 2);
  }
};

struct Host {
  Doubles rows, A, D, bias, initial, dy, dfinal;
  std::vector<int> seq, lengths;
};
struct Wanted {
  Doubles y, final_state, states, grads, dA, dD, dbias, dinitial;
};

template <typename T>
Host make(const Case& c, Random& random) {
  Host h;
  const Rows r(c);
  h.rows.resize(static_cast<size_t>(c.B) * c.L * r.pitch);
  for (size_t i = 0; i < h.rows.size(); i++) {
    const int at = static_cast<int>(i % r.pitch);
    double v = random.between(-1, 1);
    if (at >= r.delta && at < r.z) v = c.softplus ? 4 * v - 2 : 0.05 + 0.5 * std::abs(v);
    h.rows[i] = as_double(from_double<T>(v));
  }
  const auto fill = [&](Doubles& v, size_t n, double low, double high) {
    v.resize(n);
    for (double& x : v) x = static_cast<float>(random.between(low, high));
  };
  fill(h.A, static_cast<size_t>(c.D) * c.N, -3, -0.1);
  if (c.skip) fill(h.D, c.D, -1, 1);
  if (c.bias) fill(h.bias, c.D, -1, 1);
  if (c.initial) fill(h.initial, static_cast<size_t>(c.B) * c.D * c.N, -1, 1);
  if (c.dfinal) fill(h.dfinal, static_cast<size_t>(c.B) * c.D * c.N, -1, 1);
  if (c.dy) {
    h.dy.resize(static_cast<size_t>(c.B) * c.L * c.D);
    for (double& v : h.dy) v = as_double(from_double<T>(random.between(-1, 1)));
  }
  if (c.seq)
    for (int b = 0; b < c.B; b++)
      for (int t = 0, id = 0; t < c.L; t++) h.seq.push_back(id += random.next() < 0.05);
  if (c.lengths)
    for (int b = 0; b < c.B; b++) h.lengths.push_back(b % 3 == 0 ? c.L - c.L / 3 : b % 3 == 1 ? 0 : c.L);
  return h;
}

double silu_of(double x) { return x / (1 + std::exp(-x)); }
double silu_slope(double x) { const double s = 1 / (1 + std::exp(-x)); return s * (1 + x * (1 - s)); }

Wanted reference(const Case& c, const Host& h) {
  const Rows r(c);
  const int chunks = (c.L + c.chunk - 1) / c.chunk;
  Wanted w;
  w.y.assign(static_cast<size_t>(c.B) * c.L * c.D, 0);
  w.final_state.assign(static_cast<size_t>(c.B) * c.D * c.N, 0);
  w.states.assign(static_cast<size_t>(c.B) * chunks * c.D * c.N, 0);
  w.grads.assign(h.rows.size(), 0);
  w.dinitial.assign(w.final_state.size(), 0);
  w.dA.assign(static_cast<size_t>(c.D) * c.N, 0);
  w.dD.assign(c.D, 0);
  w.dbias.assign(c.D, 0);
  const size_t shared = static_cast<size_t>(c.B) * c.L * c.N;
  Doubles dBd(shared * c.D), dCd(shared * c.D);
#pragma omp parallel for schedule(dynamic)
  for (int d = 0; d < c.D; d++) {
    for (int b = 0; b < c.B; b++) {
      const int g = d * c.G / c.D, end = c.lengths ? h.lengths[b] : c.L;
      Doubles H(static_cast<size_t>(end + 1) * c.N), carry(c.N), y0(end), steps(end), raws(end);
      const size_t at = (static_cast<size_t>(b) * c.D + d) * c.N;
      if (c.initial) std::copy_n(h.initial.begin() + at, c.N, H.begin());
      const auto restart = [&](int t) { return c.seq && t > 0 && h.seq[b * c.L + t] != h.seq[b * c.L + t - 1]; };
      for (int t = 0; t < end; t++) {
        const double* row = &h.rows[(static_cast<size_t>(b) * c.L + t) * r.pitch];
        if (t % c.chunk == 0) std::copy_n(&H[static_cast<size_t>(t) * c.N], c.N, &w.states[((static_cast<size_t>(b) * chunks + t / c.chunk) * c.D + d) * c.N]);
        raws[t] = row[r.delta + d] + (c.bias ? h.bias[d] : 0);
        steps[t] = c.softplus ? std::log1p(std::exp(raws[t])) : raws[t];
        double sum = c.skip ? h.D[d] * row[r.u + d] : 0;
        for (int n = 0; n < c.N; n++) {
          const double decay = restart(t) ? 0 : std::exp(steps[t] * h.A[static_cast<size_t>(d) * c.N + n]);
          const double s = decay * H[static_cast<size_t>(t) * c.N + n] + steps[t] * row[r.u + d] * row[r.B + g * c.N + n];
          H[static_cast<size_t>(t + 1) * c.N + n] = s;
          sum += s * row[r.C + g * c.N + n];
        }
        y0[t] = sum;
        w.y[(static_cast<size_t>(b) * c.L + t) * c.D + d] = c.z ? sum * silu_of(row[r.z + d]) : sum;
      }
      const double* final_state = &H[static_cast<size_t>(end) * c.N];
      for (int k = (end + c.chunk - 1) / c.chunk; k < chunks; k++) std::copy_n(final_state, c.N, &w.states[((static_cast<size_t>(b) * chunks + k) * c.D + d) * c.N]);
      std::copy_n(final_state, c.N, &w.final_state[at]);
      if (c.dfinal) std::copy_n(h.dfinal.begin() + at, c.N, carry.begin());
      for (int t = end - 1; t >= 0; t--) {
        const size_t line = static_cast<size_t>(b) * c.L + t;
        const double* row = &h.rows[line * r.pitch];
        double* grad = &w.grads[line * r.pitch];
        double dy = c.dy ? h.dy[line * c.D + d] : 0;
        if (c.z) {
          grad[r.z + d] = dy * y0[t] * silu_slope(row[r.z + d]);
          dy *= silu_of(row[r.z + d]);
        }
        double gB = 0, dstep = 0;
        for (int n = 0; n < c.N; n++) {
          const double A = h.A[static_cast<size_t>(d) * c.N + n], decay = restart(t) ? 0 : std::exp(steps[t] * A);
          const double gn = row[r.C + g * c.N + n] * dy + carry[n], flow = gn * decay * H[static_cast<size_t>(t) * c.N + n];
          dCd[d * shared + line * c.N + n] = dy * H[static_cast<size_t>(t + 1) * c.N + n];
          dBd[d * shared + line * c.N + n] = gn * steps[t] * row[r.u + d];
          gB += gn * row[r.B + g * c.N + n];
          dstep += flow * A;
          w.dA[static_cast<size_t>(d) * c.N + n] += flow * steps[t];
          carry[n] = decay * gn;
        }
        dstep += gB * row[r.u + d];
        w.dD[d] += dy * row[r.u + d];
        grad[r.u + d] = (c.skip ? h.D[d] * dy : 0) + gB * steps[t];
        if (c.softplus) dstep /= 1 + std::exp(-raws[t]);
        grad[r.delta + d] = dstep;
        w.dbias[d] += dstep;
      }
      std::copy(carry.begin(), carry.end(), w.dinitial.begin() + at);
    }
  }
#pragma omp parallel for
  for (long long line = 0; line < static_cast<long long>(c.B) * c.L; line++) {
    for (int d = 0; d < c.D; d++) {
      for (int n = 0; n < c.N; n++) {
        w.grads[line * r.pitch + r.B + d * c.G / c.D * c.N + n] += dBd[d * shared + line * c.N + n];
        w.grads[line * r.pitch + r.C + d * c.G / c.D * c.N + n] += dCd[d * shared + line * c.N + n];
      }
    }
  }
  return w;
}

template <typename P>
void run(void* kernel, dim3 grid, int block, P p, size_t shared) {
  if (grid.x * grid.y * grid.z == 0) return;
  void* args[] = {&p};
  CHECK(cudaLaunchKernel(kernel, grid, dim3(block), args, shared, 0));
}

template <typename T>
struct Scan {
  const Case& c;
  const Rows r;
  int S, back, per, blocks;
  ScanSizes s;
  Kernels<T> kernels;
  Memory rows, A, D, bias, initial, dfinal, dy, seq, lengths;
  Memory y, states, final_state, fine, partial, gradients, dA_rows, by_row, dA, dbias, dD, dinitial;

  explicit Scan(const Case& c) : c(c), r(c) {
    S = c.N <= 16 ? 4 : c.N <= 64 ? 16 : 64;
    back = 64 / S;
    per = (std::min(c.chunk, c.L) + back - 1) / back;
    s = {c.L, c.D, c.N, c.G, (c.D / c.G + kScanChannels - 1) / kScanChannels, c.chunk, (c.L + c.chunk - 1) / c.chunk};
    blocks = s.blocks_per_group * c.G;
    kernels = find<T>(S);
  }
  const T* input(int offset) const { return rows.as<T>() + offset; }
  T* gradient(int offset) const { return gradients.as<T>() + offset; }
  void put(const Host& h) {
    const auto typed = [](Memory& m, const Doubles& from) {
      std::vector<T> v(from.size());
      for (size_t i = 0; i < from.size(); i++) v[i] = from_double<T>(from[i]);
      m.put(v);
    };
    typed(rows, h.rows);
    typed(dy, h.dy);
    put_floats(A, h.A);
    put_floats(D, h.D);
    put_floats(bias, h.bias);
    put_floats(initial, h.initial);
    put_floats(dfinal, h.dfinal);
    seq.put(h.seq);
    lengths.put(h.lengths);
  }
  void allocate() {
    const size_t tokens = static_cast<size_t>(c.B) * c.L, state = static_cast<size_t>(c.D) * c.N * 4;
    y.resize(tokens * c.D * sizeof(T));
    states.resize(c.B * s.chunks * state);
    final_state.resize(c.B * state);
    if (per > 1) fine.resize(static_cast<size_t>(c.B) * s.chunks * per * state);
    partial.resize(static_cast<size_t>(c.B) * s.chunks * per * blocks * 512 * 4);
    gradients.resize(tokens * r.pitch * sizeof(T));
    dA_rows.resize(c.B * state);
    by_row.resize(2 * c.B * c.D * 4);
    dA.resize(state);
    dbias.resize(c.D * 4);
    dD.resize(c.D * 4);
    dinitial.resize(c.B * state);
  }
  ScanForward forward_of() const {
    return {input(r.u), input(r.delta), A.as<float>(), input(r.B), input(r.C), c.z ? input(r.z) : nullptr, D.as<float>(), bias.as<float>(), initial.as<float>(),
            seq.as<int>(), lengths.as<int>(), nullptr, y.at, states.as<float>(), nullptr, final_state.as<float>(),
            r.pitch, r.pitch, r.pitch, r.pitch, r.pitch, c.D, s, c.softplus, c.aligned, per};
  }
  void forward(bool save = true) const {
    ScanForward p = forward_of();
    if (!save) {
      p.states = nullptr;
    } else if (c.chunk == back && s.chunks > 0) {
      // All chunks as one, its states every so many tokens.
      p.fine = p.states;
      p.states = nullptr;
      p.s.chunk_size = s.chunks * c.chunk;
      p.s.chunks = 1;
      p.fine_per_chunk = s.chunks;
    }
    run(kernels.forward, dim3(blocks, c.B), kScanThreads, p, kernels.forward_bytes);
  }
  void step() const { run(kernels.step, dim3(blocks, c.B), kScanThreads, forward_of(), 0); }
  void again() const {
    if (per == 1) return;
    ScanForward p = forward_of();
    p.start = states.as<float>();
    p.y = nullptr;
    p.states = p.final_state = nullptr;
    p.fine = fine.as<float>();
    run(kernels.forward, dim3(blocks, c.B, s.chunks), kScanThreads, p, kernels.forward_bytes);
  }
  void scan_backward() const {
    ScanBackward p = {input(r.u), input(r.delta), A.as<float>(), input(r.B), input(r.C), c.z ? input(r.z) : nullptr, D.as<float>(), bias.as<float>(),
                      seq.as<int>(), lengths.as<int>(), per > 1 ? fine.as<float>() : states.as<float>(), dy.at, dfinal.as<float>(),
                      gradient(r.u), gradient(r.delta), c.z ? gradient(r.z) : nullptr, partial.as<float>(), dinitial.as<float>(), dA_rows.as<float>(), by_row.as<float>(),
                      r.pitch, r.pitch, r.pitch, r.pitch, r.pitch, c.D, r.pitch, r.pitch, r.pitch, s, c.softplus, c.aligned, per};
    run(kernels.backward, dim3(blocks, c.B), kScanThreads, p, kernels.backward_bytes);
  }
  void share() const {
    const float* from = partial.as<float>();
    T *dB = gradient(r.B), *dC = gradient(r.C);
    const int* ends = lengths.as<int>();
    int pitch = r.pitch, many = per;
    ScanSizes sizes = s;
    void* args[] = {&from, &dB, &dC, &ends, &pitch, &pitch, &sizes, &many};
    CHECK(cudaLaunchKernel(kernels.shared, dim3(s.chunks * per, c.G, c.B), dim3(128), args, 0, 0));
    selective_scan_rows<<<(c.D * c.N + 255) / 256, 256>>>(dA_rows.as<float>(), by_row.as<float>(), dA.as<float>(), dD.as<float>(), dbias.as<float>(), c.B, c.D, c.N);
  }
  void backward() const {
    again();
    scan_backward();
    share();
  }
};

template <typename U>
Doubles read(const Memory& m) {
  const std::vector<U> v = m.get<U>();
  Doubles out(v.size());
  for (size_t i = 0; i < v.size(); i++) out[i] = as_double(v[i]);
  return out;
}

template <typename T>
void check(const Case& c, Report& all) {
  Random random;
  const Host host = make<T>(c, random);
  const Wanted want = reference(c, host);
  Report report;
  const std::string what = std::string(c.name) + " " + kName<T>;
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 2e-2, of_gradients = sizeof(T) == 4 ? 1e-4 : 2e-2;
  Scan<T> scan(c);
  scan.put(host);
  std::vector<unsigned char> first[2];
  for (int round = 0; round < 2; round++) {
    scan.allocate();
    scan.forward();
    CHECK(cudaDeviceSynchronize());
    scan.backward();
    CHECK(cudaDeviceSynchronize());
    for (const Memory* m : {&scan.y, &scan.states, &scan.final_state, &scan.gradients, &scan.dA, &scan.dbias, &scan.dD, &scan.dinitial}) {
      const std::vector<unsigned char> v = m->get<unsigned char>();
      first[round].insert(first[round].end(), v.begin(), v.end());
    }
  }
  report.expect(first[0] == first[1], what, "the same bits twice");
  for (const Memory* m : {&scan.y, &scan.states, &scan.final_state, &scan.gradients, &scan.dA, &scan.dbias, &scan.dD, &scan.dinitial, &scan.partial,
                          &scan.fine, &scan.dA_rows, &scan.by_row})
    report.expect(m->intact(), what, "memory after an output");
  report.compare(what, "y", read<T>(scan.y), want.y, tolerance);
  report.compare(what, "final", read<float>(scan.final_state), want.final_state, tolerance);
  report.compare(what, "states", read<float>(scan.states), want.states, tolerance);
  const Doubles grads = read<T>(scan.gradients);
  const Rows& r = scan.r;
  const auto part = [&](const char* name, int from, int size) {
    Doubles got, wanted;
    for (size_t row = 0; row < static_cast<size_t>(c.B) * c.L; row++) {
      got.insert(got.end(), &grads[row * r.pitch + from], &grads[row * r.pitch + from] + size);
      wanted.insert(wanted.end(), &want.grads[row * r.pitch + from], &want.grads[row * r.pitch + from] + size);
    }
    report.compare(what, name, got, wanted, of_gradients);
  };
  part("du", r.u, c.D);
  part("ddelta", r.delta, c.D);
  if (c.z) part("dz", r.z, c.D);
  part("dB", r.B, c.G * c.N);
  part("dC", r.C, c.G * c.N);
  bool kept = true;
  for (size_t i = 0; i < grads.size(); i++) {
    const int at = static_cast<int>(i % r.pitch);
    const bool inside = (at >= r.u && at < r.u + c.D) || (at >= r.delta && at < r.delta + c.D) || (c.z && at >= r.z && at < r.z + c.D) ||
                        (at >= r.B && at < r.B + c.G * c.N) || (at >= r.C && at < r.C + c.G * c.N);
    kept = kept && (inside || std::isnan(grads[i]));
  }
  report.expect(kept, what, "what lies between the gradients");
  report.compare(what, "dA", read<float>(scan.dA), want.dA, of_gradients);
  report.compare(what, "dbias", read<float>(scan.dbias), want.dbias, of_gradients);
  report.compare(what, "dD", read<float>(scan.dD), want.dD, of_gradients);
  report.compare(what, "dinitial", read<float>(scan.dinitial), want.dinitial, of_gradients);
  if (c.L <= 64) {
    scan.allocate();
    scan.step();
    CHECK(cudaDeviceSynchronize());
    report.compare(what, "step-y", read<T>(scan.y), want.y, tolerance);
    report.compare(what, "step-final", read<float>(scan.final_state), want.final_state, tolerance);
    if (!c.lengths) report.compare(what, "step-states", read<float>(scan.states), want.states, tolerance);
  }
  std::printf("%s %s:%s\n", report.faults ? "WRONG" : "ok", what.c_str(), report.line.c_str());
  all.faults += report.faults;
  all.checks += report.checks;
}

template <typename T>
void measure(const Case& c) {
  Random random;
  Case one = c;
  one.B = 1;
  Host host = make<T>(one, random);
  const auto repeat = [&](Doubles& v) {
    const size_t n = v.size();
    for (int b = 1; b < c.B; b++) v.insert(v.end(), v.begin(), v.begin() + n);
  };
  repeat(host.rows);
  repeat(host.dy);
  std::vector<Scan<T>*> sets;
  for (int i = 0; i < 2; i++) {
    sets.push_back(new Scan<T>(c));
    sets.back()->put(host);
    sets.back()->allocate();
  }
  const auto timed = [&](auto call) { return time_ms([&](int i) { call(*sets[i % 2]); }); };
  const double infer = timed([](Scan<T>& s) { s.forward(false); }), forward = timed([](Scan<T>& s) { s.forward(); });
  const double backward = timed([](Scan<T>& s) { s.backward(); });
  const double again = timed([](Scan<T>& s) { s.again(); }), main = timed([](Scan<T>& s) { s.scan_backward(); }), share = timed([](Scan<T>& s) { s.share(); });
  std::printf("TIME %-24s %-4s chunk %-4d forward without/with states %.3f %.3f backward %.3f both %.3f | again %.3f main %.3f share %.3f | shared %zu %zu\n", c.name,
              kName<T>, c.chunk, infer, forward, backward, forward + backward, again, main, share, sets[0]->kernels.forward_bytes, sets[0]->kernels.backward_bytes);
  for (Scan<T>* s : sets) delete s;
}

int main(int count, char** arguments) {
  bool checks = count == 1, times = count == 1;
  std::string only;
  for (int i = 1; i < count; i++) {
    checks = checks || !std::strcmp(arguments[i], "check");
    times = times || !std::strcmp(arguments[i], "time");
    if (!std::strncmp(arguments[i], "only=", 5)) only = arguments[i] + 5;
  }
  Report all;
  if (checks) {
    std::vector<Case> cases;
    const auto add = [&](Case c, auto change) {
      change(c);
      cases.push_back(c);
    };
    const auto plain = [](Case&) {};
    add({"one tile", 1, 16, 32, 16, 1, 16}, plain);
    add({"chunks of 16", 2, 70, 64, 16, 1, 16}, plain);
    add({"chunks of 64", 2, 150, 64, 16, 1, 64}, plain);
    add({"packed and padded", 3, 150, 64, 16, 1, 32}, [](Case& c) { c.seq = c.lengths = true; });
    add({"two groups", 2, 100, 96, 16, 2, 64}, [](Case& c) { c.seq = true; });
    add({"no gate", 2, 100, 48, 16, 1, 128}, [](Case& c) { c.z = false; });
    add({"nothing optional", 2, 50, 32, 16, 1, 64}, [](Case& c) { c.z = c.skip = c.bias = c.initial = c.dfinal = false; });
    add({"delta as it is", 2, 50, 32, 16, 1, 64}, [](Case& c) { c.softplus = c.bias = false; });
    add({"odd sizes, unaligned", 2, 45, 39, 7, 3, 16}, [](Case& c) { c.aligned = false; c.seq = true; });
    add({"N 4", 2, 45, 40, 4, 1, 64}, plain);
    add({"N 32", 2, 45, 40, 32, 1, 16}, [](Case& c) { c.seq = true; });
    add({"N 64", 2, 45, 40, 64, 1, 64}, [](Case& c) { c.lengths = true; });
    add({"N 128", 2, 21, 40, 128, 1, 8}, plain);
    add({"chunks of 7", 2, 30, 32, 16, 1, 7}, [](Case& c) { c.seq = c.lengths = true; });
    add({"one token", 2, 1, 64, 16, 1, 64}, plain);
    add({"the final state alone", 2, 40, 32, 16, 1, 64}, [](Case& c) { c.dy = false; });
    add({"long", 1, 2048, 64, 16, 1, 64}, plain);
    for (const Case& c : cases) {
      if (std::string(c.name).find(only) == std::string::npos) continue;
      check<bf16>(c, all);
      check<f16>(c, all);
      check<f32>(c, all);
    }
    std::printf("%d checks, %d faults\n", all.checks, all.faults);
  }
  if (times) {
    const auto bare = [](Case c) {
      c.initial = c.dfinal = false;
      return c;
    };
    for (int chunk : {64, 16, 256}) measure<bf16>(bare({"D 1536, N 16", 8, 2048, 1536, 16, 1, chunk}));
    measure<bf16>(bare({"D 2048, N 16", 8, 2048, 2048, 16, 1, 64}));
    measure<f32>(bare({"D 1536, N 16", 8, 2048, 1536, 16, 1, 64}));
    measure<bf16>(bare({"batch 1, D 1536, N 16", 1, 2048, 1536, 16, 1, 64}));
    measure<bf16>(bare({"D 1536, N 64", 2, 2048, 1536, 64, 1, 64}));
    for (int batch : {1, 64}) {
      const Case c = {"", batch, 1, 1536, 16, 1, 64};
      Random random;
      Scan<bf16> scan(c);
      scan.put(make<bf16>(c, random));
      scan.allocate();
      scan.states.resize(0);
      std::printf("TIME a step of D 1536, N 16, batch %d: %.4f\n", batch, time_ms([&](int) { scan.step(); }, 50));
    }
  }
  return all.faults ? 1 : 0;
}
