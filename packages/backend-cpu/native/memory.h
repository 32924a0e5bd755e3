// Aligned memory, in one way for every system. Knows bytes.
#pragma once

#include <cstddef>
#include <new>

namespace diffmamba {

/// Whatever kernels work on begins on a cache line, which is also the widest vector's size.
constexpr std::align_val_t kAlignment{64};

/// Uninitialised; null where there is none.
inline void* allocate_aligned(size_t bytes) { return ::operator new(bytes, kAlignment, std::nothrow); }

inline void free_aligned(void* memory) { ::operator delete(memory, kAlignment); }

}  // namespace diffmamba
