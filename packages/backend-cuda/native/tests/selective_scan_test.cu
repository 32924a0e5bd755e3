// The kernels of the selective scan against plain loops in double precision, on a device; and their times at the sizes of models.
// Build: nvcc -O3 -std=c++17 -Xcompiler -fopenmp -gencode arch=compute_90a,code=sm_90a selective_scan_test.cu -o selective_scan_test
// Run: selective_scan_test [check] [time] [only=PART OF A CASE'S NAME]

#include "../kernels/selective_scan_forward.cu"
#undef KERNELS
#undef KERNEL
#include "../kernels/selective_scan_backward.cu"
#include "selective_scan_reference.h"

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
  void put(const Host& h) { put_inputs<T>(*this, h); }
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
    p.states = nullptr;
    p.final_state = nullptr;
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
