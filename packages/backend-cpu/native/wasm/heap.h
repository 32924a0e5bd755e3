// Memory of the module: one heap for tensors and for what kernels need for a call, shared by all threads.
// Knows bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace diffmamba {

/// At least so many bytes on a cache line's boundary, and 64 more that may be read. Null where there are none.
void* heap_allocate(uint64_t bytes);

/// Takes back what `heap_allocate` gave.
void heap_free(void* memory);

}  // namespace diffmamba
