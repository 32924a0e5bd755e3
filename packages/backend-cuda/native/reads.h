// Copies from the device to the host, as functions of the addon. See reads.cc.
#pragma once

#include <node_api.h>

namespace diffmamba {

/// readNow(device, address, bytes): waits on the spot
napi_value read_now(napi_env env, napi_callback_info info);
/// startRead(device, address, length) -> a number: what is enqueued from here on is not waited for
napi_value start_read(napi_env env, napi_callback_info info);
/// finishRead(device, number, bytes) -> undefined where all is there, or a promise of that
napi_value finish_read(napi_env env, napi_callback_info info);

}  // namespace diffmamba
