// The kernels of the Mamba-2 scan against plain loops in double precision, on a device; and their times at the sizes of models.
// Build: nvcc -O3 -std=c++17 -Xcompiler -fopenmp -gencode arch=compute_90a,code=sm_90a ssd_test.cu -o ssd_test
// Run: ssd_test [check] [time] [only=PART OF A CASE'S NAME]

#include "ssd_launches.h"

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
    scan.allocate(true);
    scan.forward();
    CHECK(cudaDeviceSynchronize());
    scan.backward();
    CHECK(cudaDeviceSynchronize());
    std::vector<unsigned char> bits;
    for (const Memory* m : {&scan.y, &scan.states, &scan.final_state, &scan.gradients, &scan.dA, &scan.dbias, &scan.dD, &scan.dinitial}) {
      const std::vector<unsigned char> v = m->get<unsigned char>();
      bits.insert(bits.end(), v.begin(), v.end());
    }
    first[round] = bits;
  }
  report.expect(first[0] == first[1], what, "the same bits twice");
  for (const Memory* m : {&scan.y, &scan.states, &scan.final_state, &scan.gradients, &scan.dA, &scan.dbias, &scan.dD, &scan.dinitial, &scan.partial,
                          &scan.fine, &scan.steps, &scan.sums, &scan.restarts, &scan.dsums, &scan.by_row, &scan.dD_rows})
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
  part("dx", r.x, c.H * c.P);
  part("dB", r.B, c.G * c.N);
  part("dC", r.C, c.G * c.N);
  part("ddt", r.dt, c.H);
  if (c.z) part("dz", r.z, c.H * c.P);
  // What lies between the parts stays as it was: NaN.
  bool kept = true;
  for (size_t row = 0; row < static_cast<size_t>(c.B) * c.L; row++) {
    const double* at = grads.data() + row * r.pitch;
    for (int i = 0; i < r.pitch; i++) {
      const bool inside = (c.z && i >= r.z && i < r.z + c.H * c.P) || (i >= r.x && i < r.x + c.H * c.P) || (i >= r.B && i < r.B + c.G * c.N) ||
                          (i >= r.C && i < r.C + c.G * c.N) || (i >= r.dt && i < r.dt + c.H);
      kept = kept && (inside || std::isnan(at[i]));
    }
  }
  report.expect(kept, what, "what lies between the gradients");
  report.compare(what, "dA", read<float>(scan.dA), want.dA, of_gradients);
  report.compare(what, "dbias", read<float>(scan.dbias), want.dbias, of_gradients);
  if (c.skip) report.compare(what, "dD", read<float>(scan.dD), want.dD, of_gradients);
  report.compare(what, "dinitial", read<float>(scan.dinitial), want.dinitial, of_gradients);
  if (c.L <= 64) {
    scan.allocate(false);
    scan.step();
    CHECK(cudaDeviceSynchronize());
    report.compare(what, "step-y", read<T>(scan.y), want.y, tolerance);
    report.compare(what, "step-final", read<float>(scan.final_state), want.final_state, tolerance);
    if (c.lengths == false) report.compare(what, "step-states", read<float>(scan.states), want.states, tolerance);
  }
  std::printf("%s %s:%s\n", report.faults ? "WRONG" : "ok", what.c_str(), report.line.c_str());
  all.faults += report.faults;
  all.checks += report.checks;
}

template <typename T>
void measure(const Case& c) {
  Random random;
  Host host;
  {
    Case one = c;
    one.B = 1;
    host = make<T>(one, random);
    const auto repeat = [&](Doubles& v) {
      const size_t n = v.size();
      for (int b = 1; b < c.B; b++)
        for (size_t i = 0; i < n; i++) v.push_back(v[(i + b * 977) % n]);
    };
    repeat(host.rows);
    repeat(host.dy);
    if (c.initial) repeat(host.initial);
    if (c.dfinal) repeat(host.dfinal);
  }
  std::vector<Scan<T>*> sets;
  for (int i = 0; i < 2; i++) {
    sets.push_back(new Scan<T>(c));
    sets.back()->put(host);
    sets.back()->allocate(true);
  }
  const auto timed = [&](auto call) { return time_ms([&](int i) { call(*sets[i % 2]); }); };
  const double infer = timed([](Scan<T>& s) { s.forward(false); }), forward = timed([](Scan<T>& s) { s.forward(); });
  const double backward = timed([](Scan<T>& s) { s.backward(); });
  const double steps = timed([](Scan<T>& s) { s.make_steps(); }), scan = timed([](Scan<T>& s) { s.scan(); });
  const double again = timed([](Scan<T>& s) { s.again(); }), main = timed([](Scan<T>& s) { s.scan_backward(); });
  const double share = timed([](Scan<T>& s) { s.share(); }), finish = timed([](Scan<T>& s) { s.finish(); });
  std::printf("TIME %-34s %-4s Q%d chunk %-4d forward without/with states %.3f %.3f backward %.3f both %.3f | steps %.3f scan %.3f again %.3f main %.3f share %.3f finish %.3f | shared %zu %zu\n",
              c.name, kName<T>, sets[0]->plan.Q, c.chunk, infer, forward, backward, forward + backward, steps, scan, again, main, share, finish,
              sets[0]->forward_bytes, sets[0]->backward_bytes);
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
  cudaDeviceProp device;
  CHECK(cudaGetDeviceProperties(&device, 0));
  std::printf("%s, %d multiprocessors\n", device.name, device.multiProcessorCount);
  Report all;
  if (checks) {
    std::vector<Case> cases;
    const auto add = [&](Case c, auto change) {
      change(c);
      cases.push_back(c);
    };
    const auto plain = [](Case&) {};
    add({"one tile", 1, 64, 1, 64, 64, 1, 64}, plain);
    add({"two tiles", 2, 128, 2, 64, 128, 1, 64}, plain);
    add({"chunks of 256", 2, 300, 2, 64, 128, 1, 256}, plain);
    add({"chunks of 128, packed", 3, 300, 4, 64, 128, 2, 128}, [](Case& c) { c.seq = true; });
    add({"packed and padded", 3, 300, 4, 64, 128, 1, 64}, [](Case& c) { c.seq = c.lengths = true; });
    add({"gate, D by channel", 2, 200, 4, 64, 128, 2, 128}, [](Case& c) { c.z = c.by_channel = c.lengths = true; });
    add({"gate, a tile a chunk", 2, 130, 2, 64, 64, 1, 64}, [](Case& c) { c.z = true; });
    add({"differential, P 32", 2, 200, 8, 32, 128, 2, 256}, [](Case& c) { c.seq = true; });
    add({"P 16, N 16", 2, 150, 8, 16, 16, 1, 64}, plain);
    add({"P 128", 2, 150, 2, 128, 128, 1, 128}, [](Case& c) { c.by_channel = true; });
    add({"N 256", 1, 150, 2, 64, 256, 1, 128}, plain);
    add({"P 24, N 40", 2, 100, 3, 24, 40, 1, 64}, [](Case& c) { c.seq = true; });
    add({"odd sizes, unaligned", 2, 70, 3, 5, 7, 3, 16}, [](Case& c) { c.aligned = false; c.z = c.seq = true; });
    add({"chunks of 7", 2, 30, 2, 64, 128, 1, 7}, [](Case& c) { c.lengths = c.seq = true; });
    add({"chunks of 100", 2, 230, 2, 64, 128, 1, 100}, plain);
    add({"dt as it is, limits", 2, 100, 2, 64, 64, 1, 64}, [](Case& c) { c.softplus = c.bias = false; c.low = 0.2; c.high = 0.5; });
    add({"nothing optional", 2, 100, 2, 64, 128, 1, 128}, [](Case& c) { c.initial = c.dfinal = c.skip = c.bias = false; });
    add({"the final state alone", 2, 100, 2, 64, 128, 1, 64}, [](Case& c) { c.dy = false; });
    add({"one token", 3, 1, 4, 64, 128, 1, 64}, [](Case& c) { c.z = true; });
    add({"tiles of 32", 2, 150, 4, 64, 128, 1, 64}, [](Case& c) { c.small = c.seq = true; });
    add({"tiles of 32, N 256, P 16", 2, 100, 4, 16, 256, 1, 128}, [](Case& c) { c.small = true; });
    add({"long", 1, 2048, 2, 64, 128, 1, 256}, plain);
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
    for (int chunk : {256, 128, 64}) measure<bf16>(bare({"24 heads of 64, N 128", 8, 2048, 24, 64, 128, 1, chunk}));
    Case small = bare({"24 heads of 64, N 128", 8, 2048, 24, 64, 128, 1, 256});
    small.small = true;
    measure<bf16>(small);
    measure<bf16>(bare({"32 heads of 64, N 128", 8, 2048, 32, 64, 128, 1, 256}));
    measure<bf16>(bare({"48 heads of 32, N 128, 2 groups", 8, 2048, 48, 32, 128, 2, 256}));
    measure<bf16>(bare({"16 heads of 64, N 64", 8, 2048, 16, 64, 64, 1, 256}));
    measure<f16>(bare({"24 heads of 64, N 128", 8, 2048, 24, 64, 128, 1, 256}));
    measure<f32>(bare({"24 heads of 64, N 128", 8, 2048, 24, 64, 128, 1, 256}));
    for (int batch : {1, 64}) {
      const Case c = {"a step of 24 heads of 64, N 128", batch, 1, 24, 64, 128, 1, 64};
      Random random;
      Scan<bf16> scan(c);
      scan.put(make<bf16>(c, random));
      scan.allocate(false);
      scan.states.resize(0);
      std::printf("TIME %s, batch %d: %.4f\n", c.name, batch, time_ms([&](int) { scan.step(); }, 50));
    }
  }
  return all.faults ? 1 : 0;
}
