// What instrumented kernels call: they are compiled with -fsanitize=thread,alignment,bounds, but
// linked without its libraries.

#include "internal.h"

using cuda_on_host::Access;
using cuda_on_host::current;
using cuda_on_host::memory_access;

extern "C" {

#define HOOK(name, bytes, access)                                                           \
  void name(void* address) {                                                                \
    if (current) memory_access(address, bytes, access, __builtin_return_address(0)); \
  }
#define HOOKS(bytes)                                         \
  HOOK(__tsan_read##bytes, bytes, Access::read)              \
  HOOK(__tsan_write##bytes, bytes, Access::write)            \
  HOOK(__tsan_volatile_read##bytes, bytes, Access::read)     \
  HOOK(__tsan_volatile_write##bytes, bytes, Access::write)
#define UNALIGNED_HOOKS(bytes)                                         \
  HOOK(__tsan_unaligned_read##bytes, bytes, Access::read)              \
  HOOK(__tsan_unaligned_write##bytes, bytes, Access::write)            \
  HOOK(__tsan_unaligned_volatile_read##bytes, bytes, Access::read)     \
  HOOK(__tsan_unaligned_volatile_write##bytes, bytes, Access::write)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
UNALIGNED_HOOKS(2)
UNALIGNED_HOOKS(4)
UNALIGNED_HOOKS(8)
UNALIGNED_HOOKS(16)

void __tsan_read_range(void* address, size_t bytes) {
  if (current) {
    memory_access(address, bytes, Access::read, __builtin_return_address(0));
  }
}
void __tsan_write_range(void* address, size_t bytes) {
  if (current) {
    memory_access(address, bytes, Access::write, __builtin_return_address(0));
  }
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}

// Of -fsanitize=alignment,bounds: only the part of their data that is read here.
struct Place {
  const char* file;
  uint32_t line, column;
};
struct Mismatch {
  Place place;
  const void* type;
  unsigned char log_alignment, kind;
};

void __ubsan_handle_type_mismatch_v1(Mismatch* data, uintptr_t address) {
  const unsigned alignment = 1u << data->log_alignment;
  if (!current || address % alignment == 0) return;
  cuda_on_host::fault(__builtin_return_address(0),
                      cuda_on_host::format("misaligned access: the type asks for %u bytes, the "
                                           "address is %zu past such a multiple",
                                           alignment, address % alignment));
}

void __ubsan_handle_out_of_bounds(void*, uintptr_t index) {
  if (!current) return;
  cuda_on_host::fault(__builtin_return_address(0),
                      cuda_on_host::format("array index %zd is out of bounds", index));
}
}
