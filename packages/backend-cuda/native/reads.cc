// Reads: ordered at once, waited for later, first on the spot and then by a promise. Knows promises of Node-API, and copies of device.h.

#include "reads.h"

#include <chrono>
#include <cstring>
#include <memory>

#include "arguments.h"

namespace diffmamba {
namespace {

/// How long a read waits on the spot before it becomes a promise: a token's worth of work ends sooner than a thread wakes up.
constexpr std::chrono::microseconds kPatience{1000};

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

}  // namespace

napi_value read_now(napi_env env, napi_callback_info info) {
  const Arguments in(env, info);
  GpuDevice* const device = in.device();
  if (device == nullptr) return undefined(env);
  size_t length = 0;
  unsigned char* const to = in.array(2, &length);
  return result(env, device->read_now(in.address(1), to, length));
}

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

}  // namespace diffmamba
