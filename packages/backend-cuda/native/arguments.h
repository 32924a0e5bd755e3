// What the functions of the addon share: values of JavaScript, the arguments of a call, and the devices of a thread.
// Knows Node-API. Knows no function.
#pragma once

#include <node_api.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "device.h"

namespace diffmamba {

/// What each JavaScript thread that loaded the addon has of its own.
struct Instance {
  std::vector<std::shared_ptr<GpuDevice>> devices;
  /// Copies to the host that were ordered and not yet waited for, by their numbers.
  std::unordered_map<int, HostCopy> copies;
  int next_copy = 0;
  unsigned char* shared = nullptr;
  GpuDevice* current = nullptr;
};

inline Instance* instance(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Instance*>(data);
}

inline napi_value undefined(napi_env env) {
  napi_value value;
  napi_get_undefined(env, &value);
  return value;
}

inline napi_value number(napi_env env, double x) {
  napi_value value;
  napi_create_double(env, x, &value);
  return value;
}

inline napi_value string(napi_env env, const std::string& text) {
  napi_value value;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  return value;
}

inline void set(napi_env env, napi_value object, const char* name, napi_value value) {
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
inline napi_value result(napi_env env, const Fault& fault) {
  if (!fault.empty()) napi_throw_error(env, nullptr, fault.c_str());
  return undefined(env);
}

}  // namespace diffmamba
