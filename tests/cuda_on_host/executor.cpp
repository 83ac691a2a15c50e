// Runs the grid of a kernel: blocks one after another, the threads of a block as fibers.

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <numeric>
#include <string>

#include "internal.h"

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif

// What cuda_runtime.h declares constant: no thread can see them change.
cuda_on_host::Size threadIdx, blockIdx, blockDim, gridDim;

// Saves the callee's registers on the stack, its pointer in *save, and goes on at `load`.
extern "C" void cuda_on_host_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_on_host_switch
.hidden cuda_on_host_switch
.type cuda_on_host_switch, @function
cuda_on_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_host_switch, .-cuda_on_host_switch
)");

namespace cuda_on_host {

Fiber* current = nullptr;
Fiber fibers[kMaxThreads];
unsigned block_threads = 0;

namespace {

std::mutex mutex;  // one launch at a time
Launch launched;
unsigned order_seed = 0;
void* scheduler;  // its stack pointer while a fiber runs

// ---- fibers ----

void run_fiber() {
  launched.call(launched.arguments);
  current->status = Status::done;
  leave();
}

void prepare(Fiber& fiber, unsigned number) {
  if (fiber.stack == nullptr) {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fiber.stack = static_cast<unsigned char*>(memory);
    mprotect(fiber.stack, 4096, PROT_NONE);
  }
  const Size block = blockDim;
  fiber.number = number;
  fiber.index = {number % block.x, number / block.x % block.y, number / (block.x * block.y)};
  fiber.status = Status::ready;
  fiber.wait = {};
  fiber.copies.clear();
  fiber.batches = 0;
  // As if run_fiber had been interrupted at its start: six registers, then where to go on. The
  // stack is aligned there as after a call.
  auto** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - 64) - 1;
  *--top = reinterpret_cast<void*>(&run_fiber);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
}

void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  cuda_on_host_switch(&scheduler, fiber.stack_pointer);
  current = nullptr;
}

}  // namespace

void leave() {
  void* ignored;
  cuda_on_host_switch(&ignored, scheduler);
  __builtin_unreachable();
}

void suspend() {
  Fiber& self = *current;
  self.status = Status::waiting;
  cuda_on_host_switch(&self.stack_pointer, scheduler);
}

bool same(const Wait& a, const Wait& b) {
  return a.operation == b.operation && a.mask == b.mask && a.site.line == b.site.line &&
         (a.site.file == b.site.file || std::strcmp(a.site.file, b.site.file) == 0);
}

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::none: return "nothing";
    case Operation::syncthreads: return "__syncthreads";
    case Operation::syncthreads_or: return "__syncthreads_or";
    case Operation::syncthreads_and: return "__syncthreads_and";
    case Operation::syncthreads_count: return "__syncthreads_count";
    case Operation::syncwarp: return "__syncwarp";
    case Operation::vote: return "a vote";
    case Operation::shuffle: return "a shuffle";
    case Operation::load_matrix: return "wmma::load_matrix_sync";
    case Operation::store_matrix: return "wmma::store_matrix_sync";
    case Operation::mma: return "wmma::mma_sync";
  }
  return "";
}

namespace {

bool is_block_wide(const Fiber& fiber) {
  return fiber.status == Status::waiting && fiber.wait.mask == 0;
}

// ---- barriers of the block ----

std::string whereabouts(const Fiber& fiber) {
  std::string text = "thread " + triple(fiber.index);
  if (fiber.status == Status::done) return text + " has left the kernel";
  char mask[32] = "";
  if (fiber.wait.mask != 0) std::snprintf(mask, sizeof mask, " with mask %08x", fiber.wait.mask);
  return text + " waits at " + name_of(fiber.wait.operation) + mask + at(fiber.wait.site);
}

// Nobody can go on: names one thread that waits and one that it waits for in vain.
void report_divergence() {
  const auto end = fibers + block_threads;
  const Fiber* waits = std::find_if(fibers, end, [](const Fiber& f) {
    return f.status == Status::waiting && f.wait.mask != 0;
  });
  const bool in_warp = waits != end;
  if (!in_warp) waits = std::find_if(fibers, end, is_block_wide);
  const Fiber* missing = std::find_if(fibers, end, [&](const Fiber& f) {
    const bool concerned = !in_warp || (f.number / kWarp == waits->number / kWarp &&
                                        (waits->wait.mask >> f.number % kWarp & 1) != 0);
    return concerned && (f.status == Status::done || !same(f.wait, waits->wait));
  });
  std::string text = (in_warp ? "divergence in a warp: " : "barrier divergence: ") +
                     whereabouts(*waits) + ", but ";
  text += missing == end ? "others never come" : whereabouts(*missing);
  record(text);
}

void release_block() {
  unsigned count = 0;
  for (unsigned i = 0; i < block_threads; ++i) count += fibers[i].message.value != 0;
  for (unsigned i = 0; i < block_threads; ++i) {
    Fiber& fiber = fibers[i];
    switch (fiber.wait.operation) {
      case Operation::syncthreads_or: fiber.message.value = count > 0; break;
      case Operation::syncthreads_and: fiber.message.value = count == block_threads; break;
      default: fiber.message.value = count;
    }
    fiber.status = Status::ready;
  }
  memory_barrier();
}

// ---- blocks ----

// A permutation of 0 ... count - 1: seed 0 keeps the order, seed 1 reverses it.
std::vector<unsigned> permutation(unsigned count, unsigned seed) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (seed == 1) std::reverse(order.begin(), order.end());
  uint64_t state = seed;
  for (unsigned i = count; seed > 1 && i > 1; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[i - 1], order[(state >> 33) % i]);
  }
  return order;
}

// Runs the lanes of a warp until each of them waits for another warp, or is done.
bool run_warp(unsigned warp, const std::vector<unsigned>& lanes) {
  bool any = false, again = true;
  while (again) {
    again = false;
    for (const unsigned lane : lanes) {
      const unsigned number = warp * kWarp + lane;
      if (number >= block_threads || fibers[number].status != Status::ready) continue;
      resume(fibers[number]);
      if (fault_happened()) return false;
      any = again = true;
    }
  }
  return any;
}

void run_block(const std::vector<unsigned>& warps, const std::vector<unsigned>& lanes) {
  memory_begin_block();
  for (unsigned i = 0; i < block_threads; ++i) prepare(fibers[i], i);
  const auto end = fibers + block_threads;
  while (!fault_happened()) {
    bool any = false;
    for (const unsigned warp : warps) {
      any |= run_warp(warp, lanes);
      if (fault_happened()) return;
    }
    if (any) continue;
    if (std::all_of(fibers, end, [](const Fiber& f) { return f.status == Status::done; })) break;
    const bool together = std::all_of(fibers, end, [](const Fiber& f) {
      return is_block_wide(f) && same(f.wait, fibers[0].wait);
    });
    if (together) {
      release_block();
    } else {
      report_divergence();
    }
  }
  if (fault_happened()) return;
  const char* wrong = memory_end_block();
  if (wrong != nullptr) record(wrong);
}

bool valid(const Launch& launch) {
  const Size grid = launch.grid, block = launch.block;
  return grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffff && grid.y <= 65535 &&
         grid.z <= 65535 && block.x > 0 && block.y > 0 && block.z > 0 && block.x <= 1024 &&
         block.y <= 1024 && block.z <= 64 && block.x * block.y * block.z <= kMaxThreads;
}

void run_grid() {
  const Size grid = launched.grid;
  const auto warps = permutation((block_threads + kWarp - 1) / kWarp, order_seed);
  const auto lanes = permutation(kWarp, order_seed);
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks && !fault_happened(); ++i) {
    const uint64_t block = order_seed == 0 ? i : blocks - 1 - i;
    blockIdx = {static_cast<unsigned>(block % grid.x),
                static_cast<unsigned>(block / grid.x % grid.y),
                static_cast<unsigned>(block / (uint64_t{grid.x} * grid.y))};
    run_block(warps, lanes);
  }
}

}  // namespace

int launch(const Launch& requested) {
  const std::lock_guard<std::mutex> lock(mutex);
  launched = requested;
  forget_faults();
  if (!valid(launched)) return finish(invalid_configuration);
  gridDim = launched.grid;
  blockDim = launched.block;
  block_threads = blockDim.x * blockDim.y * blockDim.z;
  if (launched.shared_bytes > shared_limit()) {
    const char* text = format("%zu bytes of dynamic shared memory, but a block can have %zu",
                              launched.shared_bytes, shared_limit());
    record(text);
  } else {
    const SignalGuard guard;
    memory_begin_launch(launched.shared_bytes);
    run_grid();
  }
  if (!fault_happened()) return finish(success);
  write_report(launched);
  return finish(launch_failure);
}

int block_barrier(Barrier kind, bool predicate, Site site) {
  constexpr Operation operations[] = {Operation::syncthreads, Operation::syncthreads_or,
                                      Operation::syncthreads_and, Operation::syncthreads_count};
  Fiber& self = *current;
  self.wait = {operations[static_cast<int>(kind)], 0, site};
  self.message.value = predicate;
  suspend();
  return static_cast<int>(self.message.value);
}

}  // namespace cuda_on_host

// ---- for host.py ----

extern "C" {

void cuda_on_host_order(unsigned seed) { cuda_on_host::order_seed = seed; }
}
