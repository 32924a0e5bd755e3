// What only the module's entry calls of the pool in a browser. Knows counting.
#pragma once

namespace diffmamba {

/// What a helper does, for ever.
void pool_help();

/// Whether the thread that calls kernels may sleep: a page's main thread may not.
void pool_caller(bool may_sleep);

}  // namespace diffmamba
