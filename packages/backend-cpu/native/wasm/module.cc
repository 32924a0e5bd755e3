// The entry of the WebAssembly module: memory, the pool of threads, and one call that runs a kernel by number. Arguments
// cross in one array of doubles in the module's memory.
// Knows kernels by number. Knows no arithmetic.

#include <stdarg.h>

#include <cstdint>

#include "../kernels.h"
#include "../pool.h"
#include "heap.h"
#include "pool.h"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

namespace diffmamba {

/// Knows %lld alone.
Error fail(const char* format, ...) {
  static char message[512];
  char* to = message;
  char* const end = message + sizeof message - 24;
  va_list arguments;
  va_start(arguments, format);
  for (const char* from = format; *from != '\0' && to < end; from++) {
    if (from[0] != '%') {
      *to++ = *from;
      continue;
    }
    from += 3;
    const long long value = va_arg(arguments, long long);
    if (value < 0) *to++ = '-';
    unsigned long long rest = value < 0 ? 0 - static_cast<unsigned long long>(value) : static_cast<unsigned long long>(value);
    char digits[20];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest > 0);
    while (count > 0) *to++ = digits[--count];
  }
  va_end(arguments);
  *to = '\0';
  return message;
}

namespace {

#define DIFFMAMBA_KERNEL(name) #name ","
const char names[] = DIFFMAMBA_KERNELS;
#undef DIFFMAMBA_KERNEL
#define DIFFMAMBA_KERNEL(name) DIFFMAMBA_ISA::name,
const Kernel table[] = {DIFFMAMBA_KERNELS};
#undef DIFFMAMBA_KERNEL

}  // namespace

/// Null where there is no memory.
EXPORT(allocate) void* allocate(double bytes) { return heap_allocate(static_cast<uint64_t>(bytes)); }

EXPORT(release) void release(void* memory) { heap_free(memory); }

/// Runs a kernel on packed arguments. Returns null, or what went wrong.
EXPORT(run) Error run(int kernel, int threads, const double* packed) {
  pool_limit(threads);
  return table[kernel](Args(packed));
}

/// The names of the kernels in their order, each with a comma after it.
EXPORT(kernels) const char* kernels() { return names; }

/// Whether the module was made with relaxed SIMD.
EXPORT(relaxed) bool relaxed() {
#ifdef __wasm_relaxed_simd__
  return true;
#else
  return false;
#endif
}

EXPORT(caller) void caller(bool may_sleep) { pool_caller(may_sleep); }

/// Ends with the thread.
EXPORT(help) void help() { pool_help(); }

}  // namespace diffmamba

/// What a thread keeps lasts as long as the module's memory.
extern "C" int __cxa_thread_atexit(void (*)(void*), void*, void*) { return 0; }
