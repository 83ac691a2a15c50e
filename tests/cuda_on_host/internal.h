// State that the parts of the executor share.

#pragma once

#include <string>
#include <vector>

#include "executor.h"

namespace cuda_on_host {

#ifdef CUDA_ON_HOST_CHECKED
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr int kPoison = 0xff;  // NaN as any floating type, -1 as any integer
enum Error { success = 0, invalid_value = 1, invalid_configuration = 9, launch_failure = 719 };

struct Copy {  // an asynchronous copy under way
  unsigned char* to;
  unsigned char data[16];
  unsigned bytes, batch;
};

enum class Operation {
  none,
  syncthreads,
  syncthreads_or,
  syncthreads_and,
  syncthreads_count,
  syncwarp,
  vote,
  shuffle,
  load_matrix,
  store_matrix,
  mma,
};

struct Wait {  // what a thread waits at
  Operation operation = Operation::none;
  unsigned mask = 0;
  Site site = {nullptr, 0};
};

// What the lanes of a warp hand to the last one of them to arrive, and get back in `value`.
struct Message {
  uint64_t value;
  unsigned source;
  const void* inputs[3];
  const Fragment* kinds;
  float* output;
};

enum class Status { ready, waiting, done };

struct Fiber {
  void* stack_pointer;
  unsigned char* stack;
  unsigned number;  // in its block
  Size index;
  Status status;
  Wait wait;
  Message message;
  std::vector<Copy> copies;
  unsigned batches;
};

constexpr size_t kStackBytes = 256 * 1024;

extern Fiber* current;  // null outside of kernels
extern Fiber fibers[kMaxThreads];
extern unsigned block_threads;

using Complete = void (*)(unsigned mask, Fiber* warp);

// ---- warp.cpp ----

// Waits for all lanes of the mask; the last one completes the operation for all of them.
void collective(Operation operation, unsigned mask, Site site, Complete complete);

// ---- executor.cpp ----

[[noreturn]] void leave();  // gives up the running thread
void suspend();             // until someone makes it ready again
bool same(const Wait& a, const Wait& b);
const char* name_of(Operation operation);

// ---- faults.cpp ----

const char* format(const char* text, ...) __attribute__((format(printf, 1, 2)));
std::string triple(Size size);
std::string at(Site site);  // " at file:line"
// `pc`: the instruction at fault; `other`: that of an earlier access, if any.
void record(const std::string& text, const void* pc = nullptr, Site site = {nullptr, 0},
            const void* other = nullptr, const char* other_text = "");
// The same, and ends the launch.
[[noreturn]] void fault(const void* pc, const char* text, const void* other = nullptr,
                        const char* other_text = "");
[[noreturn]] void fault(Site site, const char* text);
bool fault_happened();
void forget_faults();
int finish(int error);  // what a launch returns
void write_report(const Launch& launch);

struct SignalGuard {  // signals of the processor in a kernel are faults while it lives
  SignalGuard();
  ~SignalGuard();
};

// ---- memory.cpp ----

enum class Access : uint16_t { none, read, write, atomic };

void memory_begin_launch(size_t shared_bytes);
void memory_begin_block();
const char* memory_end_block();  // what is wrong, or null
void memory_barrier();
void memory_warp_barrier(unsigned warp);
bool is_shared(const void* address);
// Checks one access of the running thread (checked mode; else nothing).
void memory_access(const void* address, size_t bytes, Access access, const void* pc);
void memory_copy_begins(void* to, size_t bytes, const void* pc);
void memory_copy_ends(void* to, size_t bytes, const void* pc);

}  // namespace cuda_on_host
