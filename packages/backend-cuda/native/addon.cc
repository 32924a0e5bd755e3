// The Node-API side: devices by number, memory by address, and launches that cross in one shared array, so that a call costs no
// conversions. Built against Node-API 8: one binary for every Node from 20 on. Loads where there is no driver, and says so.
// Knows arguments. Knows no CUDA but through device.h.

#include <cstring>

#include "arguments.h"
#include "reads.h"

namespace diffmamba {
namespace {

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
