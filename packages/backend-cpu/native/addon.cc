// The Node-API side: memory, the thread pool, and one call that runs a kernel by number. Arguments cross in one array of
// doubles, so that a call costs no conversions. Built against Node-API 8: one binary for every Node from 20 on.
// Knows kernels by number. Knows no arithmetic.

#include <node_api.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <unordered_set>

#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace diffmamba {

Error fail(const char* format, ...) {
  thread_local char message[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return message;
}

#define DIFFMAMBA_KERNEL(name) Error name(Args args);
#ifdef DIFFMAMBA_WITH_BASE
namespace base {
DIFFMAMBA_KERNELS
}
#endif
#ifdef DIFFMAMBA_WITH_AVX2
namespace avx2 {
DIFFMAMBA_KERNELS
}
#endif
#ifdef DIFFMAMBA_WITH_AVX512
namespace avx512 {
DIFFMAMBA_KERNELS
}
#endif
#undef DIFFMAMBA_KERNEL

namespace {

#define DIFFMAMBA_KERNEL(name) #name,
const char* const names[] = {DIFFMAMBA_KERNELS};
#undef DIFFMAMBA_KERNEL
#ifdef DIFFMAMBA_WITH_BASE
#define DIFFMAMBA_KERNEL(name) base::name,
const Kernel base_table[] = {DIFFMAMBA_KERNELS};
#undef DIFFMAMBA_KERNEL
#endif
#ifdef DIFFMAMBA_WITH_AVX2
#define DIFFMAMBA_KERNEL(name) avx2::name,
const Kernel avx2_table[] = {DIFFMAMBA_KERNELS};
#undef DIFFMAMBA_KERNEL
#endif
#ifdef DIFFMAMBA_WITH_AVX512
#define DIFFMAMBA_KERNEL(name) avx512::name,
const Kernel avx512_table[] = {DIFFMAMBA_KERNELS};
#undef DIFFMAMBA_KERNEL
#endif

constexpr int kKernelCount = sizeof names / sizeof names[0];

struct Isa {
  const char* name;
  /// Null where this machine has none of the sets that were built.
  const Kernel* table;
};

/// The best instruction set that was built and that this machine has; DIFFMAMBA_CPU_ISA chooses a lesser one.
Isa choose_isa() {
  const char* const wanted = getenv("DIFFMAMBA_CPU_ISA");
  const auto allows = [&](const char* name) { return wanted == nullptr || strcmp(wanted, name) == 0; };
#ifdef DIFFMAMBA_WITH_AVX512
  if (allows("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return {"avx512", avx512_table};
  }
#endif
#ifdef DIFFMAMBA_WITH_AVX2
  if ((allows("avx2") || allows("avx512")) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"avx2", avx2_table};
  }
#endif
#ifdef DIFFMAMBA_WITH_BASE
  return {"base", base_table};
#else
  return {"none", nullptr};
#endif
}

const Isa& isa() {
  static const Isa chosen = choose_isa();
  return chosen;
}

/// What each JavaScript thread that loaded the addon has of its own: the array that arguments cross in, and its memory,
/// which goes when the thread does, also where nobody disposed of it: a worker may be terminated at any time.
struct Instance {
  const double* packed = nullptr;
  std::unordered_set<void*> memory;

  ~Instance() {
    for (void* const one : memory) free_aligned(one);
  }
};

Instance* instance(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Instance*>(data);
}

napi_value undefined(napi_env env) {
  napi_value value;
  napi_get_undefined(env, &value);
  return value;
}

napi_value number(napi_env env, double x) {
  napi_value value;
  napi_create_double(env, x, &value);
  return value;
}

napi_value string(napi_env env, const char* text) {
  napi_value value;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  return value;
}

struct Call {
  napi_value values[4];
  size_t count = 4;
  Call(napi_env env, napi_callback_info info) { napi_get_cb_info(env, info, &count, values, nullptr, nullptr); }

  double number(napi_env env, size_t i) const {
    double x = 0;
    if (i < count) napi_get_value_double(env, values[i], &x);
    return x;
  }

  char* address(napi_env env, size_t i) const {
    return reinterpret_cast<char*>(static_cast<uintptr_t>(number(env, i)));
  }

  /// The bytes of a typed array.
  char* bytes(napi_env env, size_t i, size_t* length) const {
    void* data = nullptr;
    napi_typedarray_type type;
    size_t elements = 0;
    if (napi_get_typedarray_info(env, values[i], &type, &elements, &data, nullptr, nullptr) != napi_ok) return nullptr;
    const size_t width = type == napi_float64_array ? 8 : 1;
    *length = elements * width;
    return static_cast<char*>(data);
  }
};

/// allocate(bytes) -> address, 0 where there is no memory.
napi_value allocate(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  const size_t bytes = (static_cast<size_t>(call.number(env, 0)) + 63) / 64 * 64;
  // 64 bytes more: vector code may read, never write, past the last element.
  void* memory = allocate_aligned(bytes + 64);
  try {
    if (memory != nullptr) instance(env)->memory.insert(memory);
  } catch (const std::bad_alloc&) {
    free_aligned(memory);
    memory = nullptr;
  }
  return number(env, static_cast<double>(reinterpret_cast<uintptr_t>(memory)));
}

/// release(address); what is no memory of this thread's is left alone.
napi_value release(napi_env env, napi_callback_info info) {
  void* const memory = Call(env, info).address(env, 0);
  if (instance(env)->memory.erase(memory) == 1) free_aligned(memory);
  return undefined(env);
}

/// write(address, Uint8Array)
napi_value write(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  size_t length = 0;
  const char* const from = call.bytes(env, 1, &length);
  if (length > 0) memcpy(call.address(env, 0), from, length);
  return undefined(env);
}

/// read(address, Uint8Array)
napi_value read(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  size_t length = 0;
  char* const to = call.bytes(env, 1, &length);
  if (length > 0) memcpy(to, call.address(env, 0), length);
  return undefined(env);
}

/// share(Float64Array): the array that `run` reads its arguments from. The caller keeps it.
napi_value share(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  size_t length = 0;
  instance(env)->packed = reinterpret_cast<const double*>(call.bytes(env, 0, &length));
  return undefined(env);
}

/// run(kernel, threads) -> undefined, or what went wrong.
napi_value run(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  const int index = static_cast<int>(call.number(env, 0));
  const double* const packed = instance(env)->packed;
  if (index < 0 || index >= kKernelCount || packed == nullptr) return string(env, "no such kernel");
  if (isa().table == nullptr) return string(env, "the addon was built for another instruction set than this machine's");
  pool_limit(static_cast<int>(call.number(env, 1)));
  const Error error = isa().table[index](Args(packed));
  return error == nullptr ? undefined(env) : string(env, error);
}

/// runAll(count, threads): kernels one after another, of each its number, how many arguments it has, and these; `count` doubles in
/// all -> undefined, or the kernel's name and what went wrong.
napi_value run_all(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  const double* at = instance(env)->packed;
  if (at == nullptr || isa().table == nullptr) return string(env, "no such kernel");
  const double* const end = at + static_cast<int64_t>(call.number(env, 0));
  pool_limit(static_cast<int>(call.number(env, 1)));
  while (at < end) {
    const int index = static_cast<int>(at[0]);
    if (index < 0 || index >= kKernelCount) return string(env, "no such kernel");
    const Error error = isa().table[index](Args(at + 2));
    if (error != nullptr) return string(env, (std::string(names[index]) + ": " + error).c_str());
    at += 2 + static_cast<int64_t>(at[1]);
  }
  return undefined(env);
}

/// start(threads) -> whether they started.
napi_value start(napi_env env, napi_callback_info info) {
  const bool started = pool_start(static_cast<int>(Call(env, info).number(env, 0)));
  napi_value value;
  napi_get_boolean(env, started, &value);
  return value;
}

/// describe() -> { isa, kernels }
napi_value describe(napi_env env, napi_callback_info) {
  napi_value result, list;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "isa", string(env, isa().name));
  napi_create_array_with_length(env, kKernelCount, &list);
  for (int i = 0; i < kKernelCount; i++) napi_set_element(env, list, i, string(env, diffmamba::names[i]));
  napi_set_named_property(env, result, "kernels", list);
  return result;
}

/// Threads run this library's code until the process ends: it must not be unloaded with the worker that loaded it.
void pin() {
#ifdef _WIN32
  HMODULE module;
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                     reinterpret_cast<const char*>(&pin), &module);
#else
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&pin), &info) != 0) dlopen(info.dli_fname, RTLD_NOW | RTLD_NODELETE);
#endif
}

napi_value init(napi_env env, napi_value exports) {
  pin();
  napi_set_instance_data(env, new Instance, [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); }, nullptr);
  const struct {
    const char* name;
    napi_callback call;
  } functions[] = {{"allocate", allocate}, {"release", release}, {"write", write},       {"read", read},
                   {"share", share},       {"run", run},         {"runAll", run_all},    {"start", start},
                   {"describe", describe}};
  for (const auto& function : functions) {
    napi_value value;
    napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.call, nullptr, &value);
    napi_set_named_property(env, exports, function.name, value);
  }
  return exports;
}

}  // namespace
}  // namespace diffmamba

NAPI_MODULE(diffmamba_cpu, diffmamba::init)
