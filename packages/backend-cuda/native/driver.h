// The part of CUDA's driver API that is used, declared here so that no toolkit is needed, and opened at run time.
// Names, types and numbers are those of NVIDIA's documentation of the driver API. Knows no kernel and no Node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "library.h"

#ifdef _WIN32
#define DIFFMAMBA_CUDA_CALL __stdcall
#else
#define DIFFMAMBA_CUDA_CALL
#endif

namespace diffmamba {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;

constexpr CUresult CUDA_SUCCESS = 0;
constexpr CUresult CUDA_ERROR_OUT_OF_MEMORY = 2;
constexpr CUresult CUDA_ERROR_NO_DEVICE = 100;
constexpr CUresult CUDA_ERROR_NOT_READY = 600;

constexpr unsigned CU_STREAM_NON_BLOCKING = 1;
constexpr unsigned CU_EVENT_DISABLE_TIMING = 2;
constexpr int CU_STREAM_CAPTURE_MODE_RELAXED = 2;
constexpr int CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1;
constexpr int CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
constexpr int CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9;
/// What cuLaunchKernel's `extra` says: arguments come as one buffer.
inline void* const CU_LAUNCH_PARAM_END = nullptr;
inline void* const CU_LAUNCH_PARAM_BUFFER_POINTER = reinterpret_cast<void*>(1);
inline void* const CU_LAUNCH_PARAM_BUFFER_SIZE = reinterpret_cast<void*>(2);

/// CUlaunchAttribute, of which one kind is used.
struct CUlaunchAttribute {
  int id;
  char padding[4];
  union {
    char bytes[64];
    int flag;
  } value;
};
constexpr int CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6;

struct CUlaunchConfig {
  unsigned grid[3];
  unsigned block[3];
  unsigned shared;
  CUstream stream;
  CUlaunchAttribute* attributes;
  unsigned attribute_count;
};

enum CUdevice_attribute : int {
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE = 38,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
};

// X(name here, name in the library, parameters)
#define DIFFMAMBA_DRIVER_FUNCTIONS(X)                                                                                  \
  X(cuInit, "cuInit", (unsigned))                                                                                      \
  X(cuDriverGetVersion, "cuDriverGetVersion", (int*))                                                                  \
  X(cuGetErrorName, "cuGetErrorName", (CUresult, const char**))                                                        \
  X(cuGetErrorString, "cuGetErrorString", (CUresult, const char**))                                                    \
  X(cuDeviceGetCount, "cuDeviceGetCount", (int*))                                                                      \
  X(cuDeviceGet, "cuDeviceGet", (CUdevice*, int))                                                                      \
  X(cuDeviceGetName, "cuDeviceGetName", (char*, int, CUdevice))                                                        \
  X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int*, int, CUdevice))                                               \
  X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t*, CUdevice))                                                      \
  X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext*, CUdevice))                                      \
  X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                             \
  X(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext))                                                                   \
  X(cuModuleLoadData, "cuModuleLoadData", (CUmodule*, const void*))                                                    \
  X(cuModuleUnload, "cuModuleUnload", (CUmodule))                                                                      \
  X(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction*, CUmodule, const char*))                                  \
  X(cuFuncGetAttribute, "cuFuncGetAttribute", (int*, int, CUfunction))                                                 \
  X(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction, int, int))                                                  \
  X(cuLaunchKernel, "cuLaunchKernel",                                                                                  \
    (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**, void**))      \
  X(cuLaunchKernelEx, "cuLaunchKernelEx", (const CUlaunchConfig*, CUfunction, void**, void**))                         \
  X(cuStreamCreate, "cuStreamCreate", (CUstream*, unsigned))                                                           \
  X(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream))                                                                 \
  X(cuStreamSynchronize, "cuStreamSynchronize", (CUstream))                                                            \
  X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream, int))                                                  \
  X(cuStreamEndCapture, "cuStreamEndCapture", (CUstream, CUgraph*))                                                    \
  X(cuEventElapsedTime, "cuEventElapsedTime", (float*, CUevent, CUevent))                                                \
  X(cuGraphInstantiate, "cuGraphInstantiateWithFlags", (CUgraphExec*, CUgraph, unsigned long long))                    \
  X(cuGraphGetNodes, "cuGraphGetNodes", (CUgraph, void*, size_t*))                                                     \
  X(cuGraphUpload, "cuGraphUpload", (CUgraphExec, CUstream))                                                           \
  X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))                                                           \
  X(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec))                                                           \
  X(cuGraphDestroy, "cuGraphDestroy", (CUgraph))                                                                       \
  X(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr*, size_t))                                                               \
  X(cuMemFree, "cuMemFree_v2", (CUdeviceptr))                                                                          \
  X(cuMemGetInfo, "cuMemGetInfo_v2", (size_t*, size_t*))                                                               \
  X(cuMemAllocHost, "cuMemAllocHost_v2", (void**, size_t))                                                             \
  X(cuMemFreeHost, "cuMemFreeHost", (void*))                                                                           \
  X(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void*, size_t, CUstream))                           \
  X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void*, CUdeviceptr, size_t, CUstream))                                 \
  X(cuMemsetD8Async, "cuMemsetD8Async", (CUdeviceptr, unsigned char, size_t, CUstream))                                \
  X(cuEventCreate, "cuEventCreate", (CUevent*, unsigned))                                                              \
  X(cuEventDestroy, "cuEventDestroy_v2", (CUevent))                                                                    \
  X(cuEventRecord, "cuEventRecord", (CUevent, CUstream))                                                               \
  X(cuEventQuery, "cuEventQuery", (CUevent))                                                                           \
  X(cuEventSynchronize, "cuEventSynchronize", (CUevent))

/// The driver's functions. They can be called once `open()` has returned true.
struct Driver {
#define DIFFMAMBA_DECLARE(name, symbol, parameters) CUresult(DIFFMAMBA_CUDA_CALL* name) parameters = nullptr;
  DIFFMAMBA_DRIVER_FUNCTIONS(DIFFMAMBA_DECLARE)
#undef DIFFMAMBA_DECLARE

  Library library;
  /// Why there is no driver; empty where there is one.
  std::string missing;

  /// "CUDA_ERROR_OUT_OF_MEMORY: out of memory"
  std::string message(CUresult result) const {
    const char* name = nullptr;
    const char* text = nullptr;
    if (cuGetErrorName(result, &name) != CUDA_SUCCESS || name == nullptr) return "error " + std::to_string(result);
    cuGetErrorString(result, &text);
    return std::string(name) + ": " + (text != nullptr ? text : "");
  }
};

/// The driver, opened at the first call. `missing` says why it cannot be used.
const Driver& driver();

}  // namespace diffmamba
