// A library that is opened at run time, where the machine has it. Knows names of files and functions; knows no CUDA.
#pragma once

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include <string>

namespace diffmamba {

class Library {
 public:
  /// @returns whether the file could be opened; `why` is what the system says where not
  bool open(const std::string& file, std::string* why) {
#ifdef _WIN32
    handle_ = reinterpret_cast<void*>(LoadLibraryA(file.c_str()));
    if (handle_ == nullptr && why != nullptr) *why = file + ": error " + std::to_string(GetLastError());
#else
    handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr && why != nullptr) {
      const char* const said = dlerror();
      *why = said != nullptr ? said : file;
    }
#endif
    return handle_ != nullptr;
  }

  template <typename Function>
  bool find(const char* name, Function*& function) const {
#ifdef _WIN32
    function = reinterpret_cast<Function*>(
        reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(handle_), name)));
#else
    function = reinterpret_cast<Function*>(dlsym(handle_, name));
#endif
    return function != nullptr;
  }

 private:
  // Never closed: the driver does not stand it.
  void* handle_ = nullptr;
};

}  // namespace diffmamba
