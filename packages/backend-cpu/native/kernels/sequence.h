// Where the sequences of packed rows begin, and where the padding of a row does.
// Knows views. Knows no kernel.
#pragma once

#include "../view.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// How many tokens of row b are no padding, from `lengths` (B,); all of them where it is absent.
inline int64_t row_length(const View& lengths, int64_t b, int64_t length) {
  if (!lengths) return length;
  const int64_t given = lengths.as<int32_t>()[b];
  return given < 0 ? 0 : given < length ? given : length;
}

/// Whether token t of row b begins a new sequence after another one, from `seqIdx` (B, L): where it changes.
inline bool starts_sequence(const View& seqIdx, int64_t b, int64_t length, int64_t t) {
  if (!seqIdx || t == 0) return false;
  const int32_t* const index = seqIdx.as<int32_t>() + b * length + t;
  return index[0] != index[-1];
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
