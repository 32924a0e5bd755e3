// See blaslt.h. Types and numbers are those of NVIDIA's documentation of cuBLASLt, versions 12 and 13.

#include "blaslt.h"

#include <cstdlib>
#include <cstring>

namespace diffmamba {

namespace {

using cublasStatus_t = int;
constexpr cublasStatus_t CUBLAS_STATUS_SUCCESS = 0;

constexpr int CUDA_R_32F = 0;
constexpr int CUDA_R_16F = 2;
constexpr int CUDA_R_16BF = 14;
constexpr int CUBLAS_COMPUTE_32F = 68;
constexpr int CUBLAS_COMPUTE_32F_FAST_TF32 = 77;

constexpr int CUBLASLT_MATMUL_DESC_TRANSA = 3;
constexpr int CUBLASLT_MATMUL_DESC_TRANSB = 4;
constexpr int CUBLASLT_MATMUL_DESC_EPILOGUE = 7;
constexpr int CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8;
constexpr int CUBLASLT_EPILOGUE_BIAS = 4;
constexpr int CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 5;
constexpr int CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 6;
constexpr int CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1;
constexpr int CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5;
constexpr int CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6;
constexpr int CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7;
constexpr int CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8;

struct cublasLtMatmulAlgo_t {
  uint64_t data[8];
};

struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  size_t workspaceSize;
  cublasStatus_t state;
  float wavesCount;
  int reserved[4];
};

/// What NVIDIA recommends for its largest devices.
constexpr size_t kWorkspace = size_t{64} << 20;

#define DIFFMAMBA_BLASLT_FUNCTIONS(X)                                                                                  \
  X(cublasLtCreate, (void**))                                                                                          \
  X(cublasLtDestroy, (void*))                                                                                          \
  X(cublasLtMatmulDescCreate, (void**, int, int))                                                                      \
  X(cublasLtMatmulDescDestroy, (void*))                                                                                \
  X(cublasLtMatmulDescSetAttribute, (void*, int, const void*, size_t))                                                 \
  X(cublasLtMatrixLayoutCreate, (void**, int, uint64_t, uint64_t, int64_t))                                            \
  X(cublasLtMatrixLayoutDestroy, (void*))                                                                              \
  X(cublasLtMatrixLayoutSetAttribute, (void*, int, const void*, size_t))                                               \
  X(cublasLtMatmulPreferenceCreate, (void**))                                                                          \
  X(cublasLtMatmulPreferenceDestroy, (void*))                                                                          \
  X(cublasLtMatmulPreferenceSetAttribute, (void*, int, const void*, size_t))                                           \
  X(cublasLtMatmulAlgoGetHeuristic,                                                                                    \
    (void*, void*, void*, void*, void*, void*, void*, int, cublasLtMatmulHeuristicResult_t*, int*))                    \
  X(cublasLtMatmul, (void*, void*, const void*, const void*, void*, const void*, void*, const void*, const void*,      \
                     void*, void*, void*, const cublasLtMatmulAlgo_t*, void*, size_t, CUstream))

struct Functions {
#define DIFFMAMBA_DECLARE(name, parameters) cublasStatus_t(DIFFMAMBA_CUDA_CALL* name) parameters = nullptr;
  DIFFMAMBA_BLASLT_FUNCTIONS(DIFFMAMBA_DECLARE)
#undef DIFFMAMBA_DECLARE
  Library library;
};

Functions lt;

#ifdef _WIN32
const char* const kFiles[] = {"cublasLt64_13.dll", "cublasLt64_12.dll"};
const char kSlash = '\\';
#else
const char* const kFiles[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
const char kSlash = '/';
#endif

/// Files to try, in their order.
std::vector<std::string> candidates() {
  std::vector<std::string> files;
  // A file, or a folder of them. Where it is set, nothing else is looked at.
  if (const char* const given = getenv("DIFFMAMBA_CUBLASLT")) {
    files.push_back(given);
    for (const char* const file : kFiles) files.push_back(std::string(given) + kSlash + file);
    return files;
  }
  for (const char* const file : kFiles) files.push_back(file);
  for (const char* const variable : {"CUDA_HOME", "CUDA_PATH"}) {
    const char* const home = getenv(variable);
    if (home == nullptr) continue;
    for (const char* const folder : {"lib64", "lib", "bin"}) {
      for (const char* const file : kFiles) files.push_back(std::string(home) + kSlash + folder + kSlash + file);
    }
  }
#ifndef _WIN32
  for (const char* const file : kFiles) files.push_back(std::string("/usr/local/cuda/lib64/") + file);
#endif
  return files;
}

int data_type(int type) { return type == 0 ? CUDA_R_32F : type == 1 ? CUDA_R_16BF : CUDA_R_16F; }
int64_t size_of(int type) { return type == 0 ? 4 : 2; }

/// The largest power of two up to 256 that divides an address and all steps from it, in bytes.
uint32_t alignment(CUdeviceptr address, int64_t pitch, int64_t step, int64_t size) {
  const uint64_t bits = address | static_cast<uint64_t>(pitch * size) | static_cast<uint64_t>(step * size) | 256;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

}  // namespace

struct BlasLt::Plan {
  void* operation = nullptr;
  void* a = nullptr;
  void* b = nullptr;
  void* out = nullptr;
  cublasLtMatmulAlgo_t algo{};
  bool supported = false;

  ~Plan() {
    if (operation != nullptr) lt.cublasLtMatmulDescDestroy(operation);
    for (void* const layout : {a, b, out}) {
      if (layout != nullptr) lt.cublasLtMatrixLayoutDestroy(layout);
    }
  }
};

BlasLt::~BlasLt() {
  for (auto& entry : plans_) delete entry.second;
  if (handle_ != nullptr) lt.cublasLtDestroy(handle_);
  if (workspace_ != 0) driver().cuMemFree(workspace_);
}

bool BlasLt::open() {
  if (tried_) return missing_.empty();
  tried_ = true;
  if (lt.cublasLtCreate == nullptr) {
    std::string first;
    bool opened = false;
    for (const std::string& file : candidates()) {
      std::string why;
      if (lt.library.open(file, &why)) {
        file_ = file;
        opened = true;
        break;
      }
      if (first.empty()) first = why;
    }
    if (!opened) {
      missing_ = "cuBLASLt is not there (" + first + ")";
      return false;
    }
#define DIFFMAMBA_FIND(name, parameters)                                                                               \
  if (!lt.library.find(#name, lt.name)) {                                                                              \
    missing_ = file_ + " has no " #name;                                                                               \
    lt.cublasLtCreate = nullptr;                                                                                       \
    return false;                                                                                                      \
  }
    DIFFMAMBA_BLASLT_FUNCTIONS(DIFFMAMBA_FIND)
#undef DIFFMAMBA_FIND
  }
  if (lt.cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS) {
    handle_ = nullptr;
    missing_ = "cuBLASLt does not start on this device";
    return false;
  }
  if (driver().cuMemAlloc(&workspace_, kWorkspace) != CUDA_SUCCESS) {
    workspace_ = 0;
    missing_ = "there is no memory for the workspace of cuBLASLt";
    return false;
  }
  return true;
}

BlasLt::Plan* BlasLt::plan(const Product& p) {
  const int64_t size = size_of(p.type);
  const int64_t out_size = size_of(p.out_type);
  const uint32_t a_alignment = alignment(p.a, p.a_pitch, p.a_step, size);
  const uint32_t b_alignment = alignment(p.b, p.b_pitch, p.b_step, size);
  const uint32_t out_alignment = alignment(p.out, p.out_pitch, p.out_step, out_size);
  // Everything but the addresses, of which only the alignment matters.
  Product key = p;
  key.a = a_alignment;
  key.b = b_alignment;
  key.out = out_alignment;
  key.bias = p.bias != 0;
  const std::string name(reinterpret_cast<const char*>(&key), sizeof key);
  const auto found = plans_.find(name);
  if (found != plans_.end()) return found->second;

  auto* const made = new Plan;
  plans_.emplace(name, made);
  const auto ok = [](cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; };
  const auto layout = [&](void** to, int type, int64_t rows, int64_t columns, int64_t pitch, int64_t step) {
    if (!ok(lt.cublasLtMatrixLayoutCreate(to, data_type(type), rows, columns, pitch))) return false;
    if (p.batch == 1) return true;
    const int32_t count = static_cast<int32_t>(p.batch);
    return ok(lt.cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count)) &&
           ok(lt.cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step));
  };
  // Which bias is told with each product; a plan knows that there is one. Its type is that of out.
  const auto with_bias = [&] {
    return p.bias == 0 ||
           (ok(lt.cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &CUBLASLT_EPILOGUE_BIAS,
                                                 sizeof CUBLASLT_EPILOGUE_BIAS)) &&
            ok(lt.cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias)));
  };
  // The library counts in columns: it is given the transposed product out' = b' a', whose columns are our rows.
  const int32_t first_op = p.b_transposed ? 1 : 0;
  const int32_t second_op = p.a_transposed ? 1 : 0;
  const int compute = p.type == 0 && p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  void* preference = nullptr;
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const auto prefer = [&](int attribute, const auto& value) {
    return ok(lt.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
  };
  made->supported =
      ok(lt.cublasLtMatmulDescCreate(&made->operation, compute, CUDA_R_32F)) &&
      ok(lt.cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first_op, sizeof first_op)) &&
      ok(lt.cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second_op, sizeof second_op)) &&
      with_bias() &&
      layout(&made->b, p.type, p.b_transposed ? p.k : p.n, p.b_transposed ? p.n : p.k, p.b_pitch, p.b_step) &&
      layout(&made->a, p.type, p.a_transposed ? p.m : p.k, p.a_transposed ? p.k : p.m, p.a_pitch, p.a_step) &&
      layout(&made->out, p.out_type, p.n, p.m, p.out_pitch, p.out_step) &&
      ok(lt.cublasLtMatmulPreferenceCreate(&preference)) &&
      prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace) &&
      prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b_alignment) &&
      prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a_alignment) &&
      prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out_alignment) &&
      prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_alignment) &&
      ok(lt.cublasLtMatmulAlgoGetHeuristic(handle_, made->operation, made->b, made->a, made->out, made->out, preference,
                                           1, &result, &count)) &&
      count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
  if (preference != nullptr) lt.cublasLtMatmulPreferenceDestroy(preference);
  made->algo = result.algo;
  return made;
}

Outcome BlasLt::multiply(const Product& p, CUstream stream, std::string* why) {
  if (!open()) return Outcome::unsupported;
  const Plan* const chosen = plan(p);
  if (!chosen->supported) return Outcome::unsupported;
  if (p.bias != 0 && lt.cublasLtMatmulDescSetAttribute(chosen->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                                       sizeof p.bias) != CUBLAS_STATUS_SUCCESS) {
    return Outcome::unsupported;
  }
  const float alpha = 1.0f;
  const float beta = p.accumulate ? 1.0f : 0.0f;
  const auto at = [](CUdeviceptr address) { return reinterpret_cast<void*>(address); };
  const cublasStatus_t status =
      lt.cublasLtMatmul(handle_, chosen->operation, &alpha, at(p.b), chosen->b, at(p.a), chosen->a, &beta, at(p.out),
                        chosen->out, at(p.out), chosen->out, &chosen->algo, at(workspace_), kWorkspace, stream);
  if (status == CUBLAS_STATUS_SUCCESS) return Outcome::done;
  *why = "cuBLASLt: status " + std::to_string(status);
  return Outcome::failed;
}

}  // namespace diffmamba
