// What the replacement CUDA headers call. Kernels never include this file themselves.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_host {

// Line of the kernel that calls: a default argument is evaluated where the call stands.
struct Site {
  const char* file;
  int line;
};
#define CUDA_ON_HOST_SITE \
  ::cuda_on_host::Site site = {__builtin_FILE(), __builtin_LINE()}

struct Size {
  unsigned x, y, z;
};

struct Launch {
  const char* name;
  const void* kernel;  // to look up its name
  Size grid, block;
  size_t shared_bytes;
  void (*call)(const void* arguments);
  const void* arguments;
};

int launch(const Launch& launch);
void* dynamic_shared();
size_t shared_limit();
int memset_device(void* to, int value, size_t bytes);
int last_error(bool clear);
const char* error_string(int error);

[[noreturn]] void trap(const char* what, Site site);

enum class Barrier { plain, any, all, count };
int block_barrier(Barrier kind, bool predicate, Site site);

unsigned lane();
unsigned active_lanes();
void warp_barrier(unsigned mask, Site site);
unsigned ballot(unsigned mask, bool predicate, Site site);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, Site site);

void check_vector(const void* address, size_t bytes, const char* what);
void atomic_access(void* address, size_t bytes, const void* pc);

void copy_async(void* to, const void* from, size_t bytes, size_t zeros);
void copy_commit();
void copy_wait(unsigned newest);

// A wmma fragment: rows x columns elements, `count` a lane, in the order that `key` permutes.
struct Fragment {
  int rows, columns, count, bytes;
  unsigned key;
};
void load_matrix(Fragment kind, void* elements, const void* from, unsigned leading, bool by_column,
                 Site site);
void store_matrix(Fragment kind, const void* elements, void* to, unsigned leading, bool by_column,
                  Site site);
// d = a b + c, all as float, each pointer to this lane's elements.
void multiply(Fragment a_kind, const float* a, Fragment b_kind, const float* b, Fragment c_kind,
              const float* c, float* d, Site site);

}  // namespace cuda_on_host
