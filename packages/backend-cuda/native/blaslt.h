// Matrix products through cuBLASLt, opened at run time where the machine has it. An algorithm is chosen once for each shape, by the
// library's heuristic, so that the same product has the same bits. Knows the library's interface. Knows no Node.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "driver.h"

namespace diffmamba {

/// One product as Node's side describes it: out (batch, m, n) = a (batch, m, k) b (batch, k, n), all in rows.
struct Product {
  /// Element types of a and b, and of out: 0 f32, 1 bf16, 2 f16.
  int type;
  int out_type;
  /// Whether f32 may be rounded to TF32 first.
  int tf32;
  /// Whether the contiguous axis of a matrix is its first one.
  int a_transposed;
  int b_transposed;
  int accumulate;
  int64_t m, n, k, batch;
  /// Elements from one row (or column) to the next, and from one matrix to the next.
  int64_t a_pitch, b_pitch, out_pitch;
  int64_t a_step, b_step, out_step;
  CUdeviceptr a, b, out;
  /// n elements of the type of out, added to every row, aligned to 16 bytes; or 0.
  CUdeviceptr bias;
};

enum class Outcome { done, unsupported, failed };

class BlasLt {
 public:
  ~BlasLt();
  /// Opens the library. @returns whether it is there; `missing()` says why not
  bool open();
  const std::string& missing() const { return missing_; }
  /// Which file it is.
  const std::string& file() const { return file_; }
  Outcome multiply(const Product& product, CUstream stream, std::string* why);

 private:
  struct Plan;
  Plan* plan(const Product& product);

  bool tried_ = false;
  std::string missing_;
  std::string file_;
  void* handle_ = nullptr;
  CUdeviceptr workspace_ = 0;
  std::unordered_map<std::string, Plan*> plans_;
};

}  // namespace diffmamba
