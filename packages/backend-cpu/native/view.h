// What a kernel sees of its arguments: views, numbers and options, unpacked from the one array of doubles in which
// they crossed from JavaScript. The order of the fields is that of src/pack.ts.
// Knows layouts. Knows no kernel and no Node-API.
#pragma once

#include <cstdint>
#include <cstddef>

namespace diffmamba {

enum class DType : int { f32 = 0, bf16 = 1, f16 = 2, i32 = 3, u8 = 4 };

inline size_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

constexpr int kMaxRank = 6;

/// A strided view: `data` is its first element; strides count elements. Absent where `data` is null.
struct View {
  char* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};

  explicit operator bool() const { return data != nullptr; }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }

  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
  }

  /// The product of the sizes of axes [from, to).
  int64_t span(int from, int to) const {
    int64_t n = 1;
    for (int i = from; i < to; i++) n *= shape[i];
    return n;
  }

  /// Elements between two rows, where the last `inner` axes are one contiguous row and one pitch steps through the
  /// axes before them, which the caller has checked.
  int64_t pitch(int inner) const {
    for (int i = rank - inner - 1; i >= 0; i--) {
      if (shape[i] != 1) return strides[i];
    }
    return span(rank - inner, rank);
  }
};

/// Reads arguments in the order in which they were packed.
class Args {
 public:
  explicit Args(const double* at) : at_(at) {}

  View view() {
    View v;
    v.data = reinterpret_cast<char*>(static_cast<uintptr_t>(*at_++));
    v.dtype = static_cast<DType>(static_cast<int>(*at_++));
    v.rank = static_cast<int>(*at_++);
    for (int i = 0; i < kMaxRank; i++) v.shape[i] = static_cast<int64_t>(*at_++);
    for (int i = 0; i < kMaxRank; i++) v.strides[i] = static_cast<int64_t>(*at_++);
    return v;
  }

  double number() { return *at_++; }
  int64_t integer() { return static_cast<int64_t>(*at_++); }
  bool flag() { return *at_++ != 0; }

 private:
  const double* at_;
};

}  // namespace diffmamba
