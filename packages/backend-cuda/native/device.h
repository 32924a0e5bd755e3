// One opened GPU: its context, its one stream, the loaded kernels, staging memory for the host, recorded graphs, matrix products.
// Every call returns an empty string, or what went wrong. Knows no Node and no kernel by name.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "blaslt.h"
#include "driver.h"

namespace diffmamba {

using Fault = std::string;

/// A launch as Node's side writes it into the shared array; the arguments follow, as the kernel's parameters lie in memory.
struct LaunchHeader {
  int32_t kernel;
  int32_t grid[3];
  int32_t block[3];
  int32_t shared;
  int32_t argument_bytes;
  /// Whether the kernel waits itself for the one before it, and may start earlier.
  int32_t overlap;
  /// Whether multiprocessors are to be cut so that all they can is shared memory.
  int32_t beside;
  int32_t unused[5];
};

/// A copy to the host that is under way.
struct HostCopy {
  CUevent event = nullptr;
  void* pinned = nullptr;
  size_t bytes = 0;
};

class GpuDevice {
 public:
  ~GpuDevice();

  Fault open(int index, const void* fatbins, size_t length);
  /// Waits for all work; nothing else may be called afterwards.
  void close();
  bool is_open() const { return context_ != nullptr; }
  void make_current() const;

  /// @returns its number, or -1 where there is no such kernel
  int kernel(const char* name);
  Fault launch(const LaunchHeader& header, const void* arguments);
  Fault multiply(const Product& product, bool* supported);
  BlasLt& blas() { return blas_; }

  /// @returns 0 where there is no memory
  CUdeviceptr allocate(size_t bytes, Fault* fault);
  void release(CUdeviceptr address);
  Fault clear(CUdeviceptr address, size_t bytes);
  Fault write(CUdeviceptr address, const void* bytes, size_t count);
  /// Enqueues a copy to the host; it is there once `wait` has returned.
  Fault start_read(CUdeviceptr address, size_t bytes, HostCopy* copy);
  /// Whether it is there already.
  bool is_done(const HostCopy& copy) const;
  Fault wait(const HostCopy& copy) const;
  void finish(HostCopy* copy);
  /// Copies at once, waiting for all work.
  Fault read_now(CUdeviceptr address, void* to, size_t bytes);

  /// From here on, each launch and product has its time taken.
  void start_timing() { timing_ = true; }
  /// Waits for all work. @param milliseconds of each launch and product since `start_timing`, in order
  Fault stop_timing(std::vector<float>* milliseconds);

  Fault begin_capture();
  Fault end_capture(int* graph, size_t* nodes);
  Fault replay(int graph);
  void destroy_graph(int graph);

 private:
  struct Kernel {
    CUfunction function;
    int shared_limit;
    /// Whether its cut of a multiprocessor is set.
    bool beside;
  };
  Fault check(CUresult result, const char* what) const;
  /// Where times are taken: an event between what was enqueued and what follows.
  Fault mark();

  CUdevice device_ = 0;
  /// Whether kernels can start before the one before them has ended: on sm_90, sm_100 and sm_120.
  bool overlaps_ = false;
  CUcontext context_ = nullptr;
  std::vector<CUmodule> modules_;
  CUstream stream_ = nullptr;
  std::vector<Kernel> kernels_;
  std::unordered_map<std::string, int> kernel_numbers_;
  std::vector<CUgraphExec> graphs_;
  std::vector<HostCopy> free_copies_;
  /// Staging for writes: two halves, each with the event after which it may be filled again.
  unsigned char* staging_ = nullptr;
  CUevent staging_done_[2] = {nullptr, nullptr};
  int staging_half_ = 0;
  size_t staging_used_ = 0;
  bool timing_ = false;
  /// In pairs: before and after a call.
  std::vector<CUevent> marks_;
  BlasLt blas_;
};

}  // namespace diffmamba
