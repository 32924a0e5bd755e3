// Opens the driver's library. Knows where systems keep it.

#include "driver.h"

namespace diffmamba {

namespace {

Driver open_driver() {
  Driver d;
#ifdef _WIN32
  const char* const files[] = {"nvcuda.dll"};
#else
  const char* const files[] = {"libcuda.so.1", "libcuda.so"};
#endif
  std::string why;
  bool opened = false;
  for (const char* const file : files) {
    std::string said;
    opened = opened || d.library.open(file, &said);
    if (why.empty()) why = said;
    if (opened) break;
  }
  if (!opened) {
    d.missing = "there is no NVIDIA driver (" + why + ")";
    return d;
  }
#define DIFFMAMBA_FIND(name, symbol, parameters)                                                                       \
  if (!d.library.find(symbol, d.name)) {                                                                               \
    d.missing = std::string("the NVIDIA driver is too old: it has no ") + symbol + "; one for CUDA 12 or newer has it"; \
    return d;                                                                                                          \
  }
  DIFFMAMBA_DRIVER_FUNCTIONS(DIFFMAMBA_FIND)
#undef DIFFMAMBA_FIND
  const CUresult result = d.cuInit(0);
  if (result == CUDA_ERROR_NO_DEVICE) d.missing = "the NVIDIA driver finds no GPU";
  else if (result != CUDA_SUCCESS) d.missing = "the NVIDIA driver does not start (" + d.message(result) + ")";
  return d;
}

}  // namespace

const Driver& driver() {
  static const Driver opened = open_driver();
  return opened;
}

}  // namespace diffmamba
