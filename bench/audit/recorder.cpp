// A CUDA runtime that launches nothing and remembers what it was asked to launch.
//
// The audit links the kernels with it: it then knows every kernel's threads and shared memory at
// any shape, from the code that will launch it, on a machine without a GPU. What nvcc's host code
// calls has no header; signatures are those of crt/host_runtime.h and cuda_runtime_api.h.

#include <cstddef>
#include <map>
#include <string>

struct Dim3 {
  unsigned x, y, z;
};

namespace {

struct Configuration {
  Dim3 grid, block;
  size_t shared;
  void* stream;
};

std::map<const void*, std::string>& names() {
  static std::map<const void*, std::string> by_host_function;
  return by_host_function;
}

Configuration pushed;
std::string launched;

int remember(const void* function, Dim3 block, size_t shared) {
  launched += names()[function] + ' ' + std::to_string(block.x * block.y * block.z) + ' ' +
              std::to_string(shared) + '\n';
  return 0;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// A line a launch since the last call: mangled name, threads of a block, bytes of dynamic shared
// memory.
const char* seamo_launched() {
  static std::string answer;
  answer.swap(launched);
  launched.clear();
  return answer.c_str();
}

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, void*,
                            void*, Dim3*, Dim3*, int*) {
  names()[function] = name;
}

unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void* stream) {
  pushed = {grid, block, shared, stream};
  return 0;
}
int __cudaPopCallConfiguration(Dim3* grid, Dim3* block, size_t* shared, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<void**>(stream) = pushed.stream;
  return 0;
}
int __cudaGetKernel(const void** kernel, const void* function) {
  *kernel = function;
  return 0;
}
int __cudaLaunchKernel(const void* kernel, Dim3, Dim3 block, void**, size_t shared, void*) {
  return remember(kernel, block, shared);
}
int cudaLaunchKernel(const void* function, Dim3, Dim3 block, void**, size_t shared, void*) {
  return remember(function, block, shared);
}

int cudaFuncSetAttribute(const void*, int, int) { return 0; }
int cudaGetLastError() { return 0; }
const char* cudaGetErrorString(int) { return "no error"; }

}  // extern "C"
#pragma GCC visibility pop
