// The Node-API side: devices by number, memory by address, and launches that cross in one shared array, so that a call costs no
// conversions. Built against Node-API 8: one binary for every Node from 20 on. Loads where there is no driver, and says so.
// Knows arguments and promises. Knows no CUDA but through device.h.

#include <node_api.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

#include "device.h"

namespace diffmamba {
namespace {

/// How long a read waits on the spot before it becomes a promise: a token's worth of work ends sooner than a thread wakes up.
constexpr std::chrono::microseconds kPatience{300};

/// What each JavaScript thread that loaded the addon has of its own.
struct Instance {
  std::vector<std::shared_ptr<GpuDevice>> devices;
  /// Copies to the host that were ordered and not yet waited for, by their numbers.
  std::unordered_map<int, HostCopy> copies;
  int next_copy = 0;
  unsigned char* shared = nullptr;
  GpuDevice* current = nullptr;
};

Instance* instance(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Instance*>(data);
}

napi_value undefined(napi_env env) {
  napi_value value;
  napi_get_undefined(env, &value);
  return value;
}

napi_value number(napi_env env, double x) {
  napi_value value;
  napi_create_double(env, x, &value);
  return value;
}

napi_value string(napi_env env, const std::string& text) {
  napi_value value;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  return value;
}

void set(napi_env env, napi_value object, const char* name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

/// Up to four arguments of a call.
struct Arguments {
  napi_env env;
  size_t count = 4;
  napi_value values[4];

  Arguments(napi_env env_, napi_callback_info info) : env(env_) {
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }
  double real(size_t i) const {
    double x = 0;
    if (i < count) napi_get_value_double(env, values[i], &x);
    return x;
  }
  int whole(size_t i) const { return static_cast<int>(real(i)); }
  CUdeviceptr address(size_t i) const { return static_cast<CUdeviceptr>(real(i)); }
  size_t bytes(size_t i) const { return static_cast<size_t>(real(i)); }
  /// The bytes of a typed array or buffer.
  unsigned char* array(size_t i, size_t* length) const {
    napi_typedarray_type type;
    void* data = nullptr;
    *length = 0;
    if (i < count) napi_get_typedarray_info(env, values[i], &type, length, &data, nullptr, nullptr);
    return static_cast<unsigned char*>(data);
  }
  std::string text(size_t i) const {
    char buffer[256] = "";
    size_t length = 0;
    if (i < count) napi_get_value_string_utf8(env, values[i], buffer, sizeof buffer, &length);
    return std::string(buffer, length);
  }
  /// The device of argument 0, made current; null, with an error thrown, where it was closed.
  GpuDevice* device() const {
    Instance* const own = instance(env);
    const size_t at = static_cast<size_t>(real(0));
    GpuDevice* const found = at < own->devices.size() ? own->devices[at].get() : nullptr;
    if (found == nullptr) {
      napi_throw_error(env, nullptr, "the device was closed");
      return nullptr;
    }
    if (own->current != found) found->make_current();
    own->current = found;
    return found;
  }
};

/// undefined or, for a fault, an exception.
napi_value result(napi_env env, const Fault& fault) {
  if (!fault.empty()) napi_throw_error(env, nullptr, fault.c_str());
  return undefined(env);
}

int attribute(CUdevice device, CUdevice_attribute which) {
  int value = 0;
  driver().cuDeviceGetAttribute(&value, which, device);
  return value;
}

/// probe(): what the driver says, without opening a device.
napi_value probe(napi_env env, napi_callback_info) {
  const Driver& d = driver();
  napi_value out;
  napi_create_object(env, &out);
  if (!d.missing.empty()) {
    set(env, out, "missing", string(env, d.missing));
    return out;
  }
  int version = 0;
  int count = 0;
  d.cuDriverGetVersion(&version);
  d.cuDeviceGetCount(&count);
  set(env, out, "driver", number(env, version));
  napi_value devices;
  napi_create_array(env, &devices);
  for (int i = 0; i < count; i++) {
    CUdevice device = 0;
    char name[256] = "";
    size_t memory = 0;
    if (d.cuDeviceGet(&device, i) != CUDA_SUCCESS) continue;
    d.cuDeviceGetName(name, sizeof name, device);
    d.cuDeviceTotalMem(&memory, device);
    napi_value one;
    napi_create_object(env, &one);
    set(env, one, "name", string(env, name));
    set(env, one, "computeCapability",
        number(env, 10 * attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                        attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)));
    set(env, one, "multiprocessors", number(env, attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)));
    set(env, one, "sharedPerBlock",
        number(env, attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)));
    set(env, one, "sharedPerMultiprocessor",
        number(env, attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)));
    set(env, one, "l2Bytes", number(env, attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)));
    set(env, one, "memoryBytes", number(env, static_cast<double>(memory)));
    napi_set_element(env, devices, i, one);
  }
  set(env, out, "devices", devices);
  return out;
}

/// open(index, file of kernels) -> number of the device
napi_value open(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  size_t length = 0;
  const unsigned char* const fatbins = in.array(1, &length);
  auto device = std::make_shared<GpuDevice>();
  const Fault fault = driver().missing.empty() ? device->open(in.whole(0), fatbins, length) : driver().missing;
  if (!fault.empty()) return result(env, fault);
  Instance* const own = instance(env);
  own->current = device.get();
  own->devices.push_back(std::move(device));
  return number(env, static_cast<double>(own->devices.size() - 1));
}

/// close(device)
napi_value close(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  device->close();
  Instance* const own = instance(env);
  own->current = nullptr;
  own->devices[static_cast<size_t>(in.real(0))].reset();
  return undefined(env);
}

/// share(array): what `launch` and `multiply` read; the caller keeps it alive.
napi_value share(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  size_t length = 0;
  instance(env)->shared = in.array(0, &length);
  return undefined(env);
}

/// kernel(device, name) -> its number, or -1
napi_value kernel(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  return device == nullptr ? undefined(env) : number(env, device->kernel(in.text(1).c_str()));
}

/// launch(device): what the shared array says
napi_value launch(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  const unsigned char* const shared = instance(env)->shared;
  return result(env, device->launch(*reinterpret_cast<const LaunchHeader*>(shared), shared + sizeof(LaunchHeader)));
}

/// multiply(device) -> whether the library takes such a product; the numbers are doubles in the shared array.
napi_value multiply(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  const double* x = reinterpret_cast<const double*>(instance(env)->shared);
  Product p;
  for (int* const field : {&p.type, &p.out_type, &p.tf32, &p.a_transposed, &p.b_transposed, &p.accumulate}) {
    *field = static_cast<int>(*x++);
  }
  for (int64_t* const field :
       {&p.m, &p.n, &p.k, &p.batch, &p.a_pitch, &p.b_pitch, &p.out_pitch, &p.a_step, &p.b_step, &p.out_step}) {
    *field = static_cast<int64_t>(*x++);
  }
  for (CUdeviceptr* const field : {&p.a, &p.b, &p.out, &p.bias}) *field = static_cast<CUdeviceptr>(*x++);
  bool supported = false;
  const Fault fault = device->multiply(p, &supported);
  if (!fault.empty()) return result(env, fault);
  napi_value value;
  napi_get_boolean(env, supported, &value);
  return value;
}

/// startTiming(device)
napi_value start_timing(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device != nullptr) device->start_timing();
  return undefined(env);
}

/// stopTiming(device) -> milliseconds of each launch and product since startTiming
napi_value stop_timing(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  std::vector<float> times;
  const Fault fault = device->stop_timing(&times);
  if (!fault.empty()) return result(env, fault);
  napi_value out;
  napi_create_array_with_length(env, times.size(), &out);
  for (size_t i = 0; i < times.size(); i++) napi_set_element(env, out, static_cast<uint32_t>(i), number(env, times[i]));
  return out;
}

/// blas(device) -> { file } or { missing }
napi_value blas(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  napi_value out;
  napi_create_object(env, &out);
  if (device->blas().open()) set(env, out, "file", string(env, device->blas().file()));
  else set(env, out, "missing", string(env, device->blas().missing()));
  return out;
}

/// allocate(device, bytes) -> an address, 0 where there is no memory
napi_value allocate(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  Fault fault;
  const CUdeviceptr address = device->allocate(in.bytes(1), &fault);
  return fault.empty() ? number(env, static_cast<double>(address)) : result(env, fault);
}

/// release(device, address)
napi_value release(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device != nullptr) device->release(in.address(1));
  return undefined(env);
}

/// clear(device, address, bytes)
napi_value clear(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  return device == nullptr ? undefined(env) : result(env, device->clear(in.address(1), in.bytes(2)));
}

/// write(device, address, bytes)
napi_value write(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  size_t length = 0;
  const unsigned char* const bytes = in.array(2, &length);
  return result(env, device->write(in.address(1), bytes, length));
}

/// A read that became a promise.
struct PendingRead {
  std::shared_ptr<GpuDevice> device;
  HostCopy copy;
  Fault fault;
  unsigned char* to = nullptr;
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref array = nullptr;
};

void execute_read(napi_env, void* data) {
  auto* const read = static_cast<PendingRead*>(data);
  read->device->make_current();
  read->fault = read->device->wait(read->copy);
}

void complete_read(napi_env env, napi_status, void* data) {
  std::unique_ptr<PendingRead> read(static_cast<PendingRead*>(data));
  if (read->fault.empty()) {
    if (read->copy.bytes > 0) memcpy(read->to, read->copy.pinned, read->copy.bytes);
    napi_resolve_deferred(env, read->deferred, undefined(env));
  } else {
    napi_value error;
    napi_create_error(env, nullptr, string(env, read->fault), &error);
    napi_reject_deferred(env, read->deferred, error);
  }
  if (read->device->is_open()) read->device->make_current();
  instance(env)->current = nullptr;
  read->device->finish(&read->copy);
  napi_delete_reference(env, read->array);
  napi_delete_async_work(env, read->work);
}

/// readNow(device, address, bytes): waits on the spot
napi_value read_now(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  size_t length = 0;
  unsigned char* const to = in.array(2, &length);
  return result(env, device->read_now(in.address(1), to, length));
}

/// startRead(device, address, length) -> a number: what is enqueued from here on is not waited for
napi_value start_read(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  HostCopy copy;
  const Fault fault = device->start_read(in.address(1), in.bytes(2), &copy);
  if (!fault.empty()) return result(env, fault);
  Instance* const own = instance(env);
  own->next_copy = (own->next_copy + 1) & 0x3fffffff;
  own->copies[own->next_copy] = copy;
  return number(env, own->next_copy);
}

/// finishRead(device, number, bytes) -> undefined where all is there, or a promise of that
napi_value finish_read(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  size_t length = 0;
  unsigned char* const to = in.array(2, &length);
  Instance* const own = instance(env);
  const auto found = own->copies.find(in.whole(1));
  if (found == own->copies.end() || found->second.bytes != length) return result(env, "there is no such read");
  HostCopy copy = found->second;
  own->copies.erase(found);
  const auto until = std::chrono::steady_clock::now() + kPatience;
  do {
    if (!device->is_done(copy)) continue;
    const Fault failed = device->wait(copy);
    if (failed.empty() && length > 0) memcpy(to, copy.pinned, length);
    device->finish(&copy);
    return result(env, failed);
  } while (std::chrono::steady_clock::now() < until);

  auto* const pending = new PendingRead;
  pending->device = instance(env)->devices[static_cast<size_t>(in.real(0))];
  pending->copy = copy;
  pending->to = to;
  napi_value promise;
  napi_create_promise(env, &pending->deferred, &promise);
  napi_create_reference(env, in.values[2], 1, &pending->array);
  napi_create_async_work(env, nullptr, string(env, "diffmamba:read"), execute_read, complete_read, pending, &pending->work);
  napi_queue_async_work(env, pending->work);
  return promise;
}

/// beginCapture(device)
napi_value begin_capture(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  return device == nullptr ? undefined(env) : result(env, device->begin_capture());
}

/// endCapture(device) -> { graph, nodes }
napi_value end_capture(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  int graph = -1;
  size_t nodes = 0;
  const Fault fault = device->end_capture(&graph, &nodes);
  if (!fault.empty()) return result(env, fault);
  napi_value out;
  napi_create_object(env, &out);
  set(env, out, "graph", number(env, graph));
  set(env, out, "nodes", number(env, static_cast<double>(nodes)));
  return out;
}

/// replay(device, graph)
napi_value replay(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  return device == nullptr ? undefined(env) : result(env, device->replay(in.whole(1)));
}

/// destroyGraph(device, graph)
napi_value destroy_graph(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device != nullptr) device->destroy_graph(in.whole(1));
  return undefined(env);
}

struct Function {
  const char* name;
  napi_callback call;
};

const Function functions[] = {
    {"probe", probe},       {"open", open},         {"close", close},
    {"share", share},       {"kernel", kernel},     {"launch", launch},
    {"multiply", multiply}, {"blas", blas},         {"allocate", allocate},
    {"release", release},   {"clear", clear},       {"write", write},
    {"readNow", read_now},  {"startRead", start_read}, {"finishRead", finish_read},
    {"replay", replay},         {"beginCapture", begin_capture},
    {"endCapture", end_capture}, {"destroyGraph", destroy_graph},
    {"startTiming", start_timing}, {"stopTiming", stop_timing},
};

napi_value init(napi_env env, napi_value exports) {
  napi_set_instance_data(
      env, new Instance, [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); }, nullptr);
  for (const Function& function : functions) {
    napi_value value;
    napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.call, nullptr, &value);
    set(env, exports, function.name, value);
  }
  // The number that src/addon.ts knows: how the two sides call each other.
  set(env, exports, "interfaceVersion", number(env, 3));
  return exports;
}

}  // namespace
}  // namespace diffmamba

NAPI_MODULE(diffmamba_cuda, diffmamba::init)
