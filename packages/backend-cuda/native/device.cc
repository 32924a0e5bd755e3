// See device.h.

#include "device.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace diffmamba {

namespace {

/// Bytes of one half of the staging memory for writes.
constexpr size_t kHalf = size_t{4} << 20;
/// Copies to the host up to here have pinned memory kept for them.
constexpr size_t kPinned = size_t{1} << 16;
constexpr int kSharedByDefault = 48 * 1024;

}  // namespace

Fault GpuDevice::check(CUresult result, const char* what) const {
  return result == CUDA_SUCCESS ? Fault() : std::string(what) + ": " + driver().message(result);
}

#define DIFFMAMBA_TRY(call, what)                                \
  do {                                                           \
    const CUresult result_ = (call);                             \
    if (result_ != CUDA_SUCCESS) return check(result_, what);    \
  } while (false)

void GpuDevice::make_current() const { driver().cuCtxSetCurrent(context_); }

Fault GpuDevice::open(int index, const void* fatbins, size_t length) {
  const Driver& d = driver();
  DIFFMAMBA_TRY(d.cuDeviceGet(&device_, index), "the device cannot be had");
  DIFFMAMBA_TRY(d.cuDevicePrimaryCtxRetain(&context_, device_), "the device cannot be opened");
  make_current();
  int major = 0;
  d.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device_);
  // Only where there is machine code made for it: what the driver compiles from the PTX of sm_80 does not wait.
  overlaps_ = major == 9 || major == 10 || major == 12;
  // The kernels' file: for each module its length in the first 8 of 16 bytes, then the module, up to a multiple of 16 bytes.
  const unsigned char* from = static_cast<const unsigned char*>(fatbins);
  for (const unsigned char* const end = from + length; from + 16 <= end;) {
    uint64_t bytes;
    memcpy(&bytes, from, sizeof bytes);
    if (bytes == 0 || bytes > static_cast<uint64_t>(end - from) - 16) break;
    CUmodule module = nullptr;
    DIFFMAMBA_TRY(d.cuModuleLoadData(&module, from + 16), "the kernels do not load");
    modules_.push_back(module);
    from += 16 + ((bytes + 15) & ~uint64_t{15});
  }
  if (modules_.empty()) return "the file of the kernels holds none";
  DIFFMAMBA_TRY(d.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "there is no stream");
  void* staging = nullptr;
  DIFFMAMBA_TRY(d.cuMemAllocHost(&staging, 2 * kHalf), "there is no pinned memory");
  staging_ = static_cast<unsigned char*>(staging);
  for (CUevent& event : staging_done_) {
    DIFFMAMBA_TRY(d.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING), "there is no event");
    DIFFMAMBA_TRY(d.cuEventRecord(event, stream_), "the device does not work");
  }
  return Fault();
}

void GpuDevice::close() {
  if (context_ == nullptr) return;
  const Driver& d = driver();
  make_current();
  if (stream_ != nullptr) d.cuStreamSynchronize(stream_);
  for (CUgraphExec graph : graphs_) {
    if (graph != nullptr) d.cuGraphExecDestroy(graph);
  }
  graphs_.clear();
  blas_.~BlasLt();
  new (&blas_) BlasLt();
  for (HostCopy& copy : free_copies_) {
    d.cuEventDestroy(copy.event);
    d.cuMemFreeHost(copy.pinned);
  }
  free_copies_.clear();
  for (CUevent event : staging_done_) {
    if (event != nullptr) d.cuEventDestroy(event);
  }
  if (staging_ != nullptr) d.cuMemFreeHost(staging_);
  if (stream_ != nullptr) d.cuStreamDestroy(stream_);
  for (CUmodule module : modules_) d.cuModuleUnload(module);
  modules_.clear();
  d.cuDevicePrimaryCtxRelease(device_);
  context_ = nullptr;
}

GpuDevice::~GpuDevice() { close(); }

int GpuDevice::kernel(const char* name) {
  const auto found = kernel_numbers_.find(name);
  if (found != kernel_numbers_.end()) return found->second;
  CUfunction function = nullptr;
  for (CUmodule module : modules_) {
    if (driver().cuModuleGetFunction(&function, module, name) == CUDA_SUCCESS) break;
    function = nullptr;
  }
  if (function == nullptr) return -1;
  const int number = static_cast<int>(kernels_.size());
  // What the kernel declares itself counts too.
  int own = 0;
  if (driver().cuFuncGetAttribute(&own, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function) != CUDA_SUCCESS) own = kSharedByDefault;
  kernels_.push_back({function, kSharedByDefault - own, false});
  kernel_numbers_.emplace(name, number);
  return number;
}

Fault GpuDevice::launch(const LaunchHeader& h, const void* arguments) {
  const Driver& d = driver();
  Kernel& kernel = kernels_[h.kernel];
  if (h.shared > kernel.shared_limit) {
    DIFFMAMBA_TRY(d.cuFuncSetAttribute(kernel.function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, h.shared),
                  "the kernel cannot have so much shared memory");
    kernel.shared_limit = h.shared;
  }
  if (h.beside && !kernel.beside) {
    DIFFMAMBA_TRY(d.cuFuncSetAttribute(kernel.function, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100),
                  "the kernel cannot have so much shared memory");
    kernel.beside = true;
  }
  size_t bytes = static_cast<size_t>(h.argument_bytes);
  if (Fault fault = mark(); !fault.empty()) return fault;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, const_cast<void*>(arguments), CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                   CU_LAUNCH_PARAM_END};
  if (h.overlap && overlaps_ && !timing_) {
    CUlaunchAttribute attribute{};
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.flag = 1;
    CUlaunchConfig config{};
    std::copy(h.grid, h.grid + 3, config.grid);
    std::copy(h.block, h.block + 3, config.block);
    config.shared = h.shared;
    config.stream = stream_;
    config.attributes = &attribute;
    config.attribute_count = 1;
    return check(d.cuLaunchKernelEx(&config, kernel.function, nullptr, extra), "the launch was refused");
  }
  DIFFMAMBA_TRY(d.cuLaunchKernel(kernel.function, h.grid[0], h.grid[1], h.grid[2], h.block[0], h.block[1], h.block[2],
                                 h.shared, stream_, nullptr, extra),
                "the launch was refused");
  return mark();
}

Fault GpuDevice::multiply(const Product& product, bool* supported) {
  Fault why;
  if (Fault fault = mark(); !fault.empty()) return fault;
  const Outcome outcome = blas_.multiply(product, stream_, &why);
  *supported = outcome != Outcome::unsupported;
  if (outcome == Outcome::done) return mark();
  if (timing_) {
    driver().cuEventDestroy(marks_.back());
    marks_.pop_back();
  }
  return outcome == Outcome::failed ? why : Fault();
}

Fault GpuDevice::mark() {
  if (!timing_) return Fault();
  CUevent event = nullptr;
  DIFFMAMBA_TRY(driver().cuEventCreate(&event, 0), "there is no event");
  marks_.push_back(event);
  return check(driver().cuEventRecord(event, stream_), "a time cannot be taken");
}

Fault GpuDevice::stop_timing(std::vector<float>* milliseconds) {
  const Driver& d = driver();
  timing_ = false;
  CUresult result = d.cuStreamSynchronize(stream_);
  for (size_t i = 0; i + 1 < marks_.size(); i += 2) {
    float elapsed = 0;
    if (result == CUDA_SUCCESS) result = d.cuEventElapsedTime(&elapsed, marks_[i], marks_[i + 1]);
    milliseconds->push_back(elapsed);
  }
  for (CUevent event : marks_) d.cuEventDestroy(event);
  marks_.clear();
  return check(result, "times cannot be taken");
}

CUdeviceptr GpuDevice::allocate(size_t bytes, Fault* fault) {
  CUdeviceptr address = 0;
  const CUresult result = driver().cuMemAlloc(&address, bytes);
  if (result == CUDA_SUCCESS) return address;
  if (result != CUDA_ERROR_OUT_OF_MEMORY) *fault = check(result, "memory cannot be had");
  return 0;
}

void GpuDevice::release(CUdeviceptr address) { driver().cuMemFree(address); }

Fault GpuDevice::clear(CUdeviceptr address, size_t bytes) {
  return check(driver().cuMemsetD8Async(address, 0, bytes, stream_), "memory cannot be cleared");
}

Fault GpuDevice::write(CUdeviceptr address, const void* bytes, size_t count) {
  const Driver& d = driver();
  const unsigned char* from = static_cast<const unsigned char*>(bytes);
  while (count > 0) {
    if (staging_used_ == kHalf) {
      DIFFMAMBA_TRY(d.cuEventRecord(staging_done_[staging_half_], stream_), "a write failed");
      staging_half_ ^= 1;
      staging_used_ = 0;
      DIFFMAMBA_TRY(d.cuEventSynchronize(staging_done_[staging_half_]), "a write failed");
    }
    const size_t part = std::min(count, kHalf - staging_used_);
    unsigned char* const staged = staging_ + staging_half_ * kHalf + staging_used_;
    memcpy(staged, from, part);
    DIFFMAMBA_TRY(d.cuMemcpyHtoDAsync(address, staged, part, stream_), "a write failed");
    staging_used_ = std::min(kHalf, staging_used_ + ((part + 63) & ~size_t{63}));
    from += part;
    address += part;
    count -= part;
  }
  return Fault();
}

Fault GpuDevice::start_read(CUdeviceptr address, size_t bytes, HostCopy* copy) {
  const Driver& d = driver();
  if (bytes <= kPinned && !free_copies_.empty()) {
    *copy = free_copies_.back();
    free_copies_.pop_back();
  } else {
    DIFFMAMBA_TRY(d.cuMemAllocHost(&copy->pinned, std::max(bytes, kPinned)), "there is no pinned memory");
    DIFFMAMBA_TRY(d.cuEventCreate(&copy->event, CU_EVENT_DISABLE_TIMING), "there is no event");
  }
  copy->bytes = bytes;
  if (bytes > 0) DIFFMAMBA_TRY(d.cuMemcpyDtoHAsync(copy->pinned, address, bytes, stream_), "a read failed");
  return check(d.cuEventRecord(copy->event, stream_), "a read failed");
}

bool GpuDevice::is_done(const HostCopy& copy) const { return driver().cuEventQuery(copy.event) != CUDA_ERROR_NOT_READY; }

Fault GpuDevice::wait(const HostCopy& copy) const {
  return check(driver().cuEventSynchronize(copy.event), "the device failed at something that was asked of it before");
}

void GpuDevice::finish(HostCopy* copy) {
  if (copy->bytes <= kPinned && is_open()) {
    free_copies_.push_back(*copy);
  } else {
    driver().cuEventDestroy(copy->event);
    driver().cuMemFreeHost(copy->pinned);
  }
  *copy = HostCopy();
}

Fault GpuDevice::read_now(CUdeviceptr address, void* to, size_t bytes) {
  DIFFMAMBA_TRY(driver().cuMemcpyDtoHAsync(to, address, bytes, stream_), "a read failed");
  return check(driver().cuStreamSynchronize(stream_), "a read failed");
}

Fault GpuDevice::begin_capture() {
  return check(driver().cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_RELAXED), "recording does not start");
}

Fault GpuDevice::end_capture(int* graph, size_t* nodes) {
  const Driver& d = driver();
  CUgraph made = nullptr;
  DIFFMAMBA_TRY(d.cuStreamEndCapture(stream_, &made), "what was recorded is no graph");
  CUgraphExec executable = nullptr;
  d.cuGraphGetNodes(made, nullptr, nodes);
  CUresult result = d.cuGraphInstantiate(&executable, made, 0);
  if (result == CUDA_SUCCESS) result = d.cuGraphUpload(executable, stream_);
  d.cuGraphDestroy(made);
  if (result != CUDA_SUCCESS) return check(result, "the recorded graph cannot be made ready");
  *graph = static_cast<int>(graphs_.size());
  graphs_.push_back(executable);
  return Fault();
}

Fault GpuDevice::replay(int graph) {
  return check(driver().cuGraphLaunch(graphs_[graph], stream_), "the recording cannot be replayed");
}

void GpuDevice::destroy_graph(int graph) {
  // It may still run.
  driver().cuStreamSynchronize(stream_);
  driver().cuGraphExecDestroy(graphs_[graph]);
  graphs_[graph] = nullptr;
}

}  // namespace diffmamba
