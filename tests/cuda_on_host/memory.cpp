// Shared memory, and the checks of every access, which hooks.cpp reports.

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "internal.h"

namespace cuda_on_host {

namespace {

// ---- regions that a kernel may touch ----

struct Event {  // an access of the past
  uint32_t phase, warp_phase, pc;
  uint16_t thread;
  Access access;
};

struct Cell {  // of one byte
  Event write;
  Event reads[2];  // two threads that have read it since, of different warps if there are such
  uint32_t filled;  // phase in which it got a value
  bool in_flight;   // an asynchronous copy has not arrived yet
};

struct Region {
  uintptr_t begin, end;
  std::string name;
  Cell* cells;
  bool shared;
};

constexpr size_t kGuard = 1024;
constexpr size_t kLargestBlock = 227 * 1024;
size_t limit = 163 * 1024;  // of sm_80, the smallest of our targets

alignas(128) unsigned char dynamic_bytes[kGuard + kLargestBlock + kGuard];
unsigned char* const dynamic = dynamic_bytes + kGuard;
volatile thread_local char thread_local_anchor;

Region dynamic_region = {0, 0, "dynamic shared memory", nullptr, true};
Region static_region = {0, 0, "static shared memory", nullptr, true};
Region image = {0, 0, "constants", nullptr, false};
std::vector<Region> tensors;  // sorted by address

// Time is counted in phases, one from barrier to barrier, never reset.
uint32_t phase = 1, first_of_launch = 1, first_of_block = 1;
uint32_t warp_phases[kMaxThreads / kWarp];
size_t static_bytes_used;

Cell* new_cells(size_t bytes) {  // zeros, of which only what is touched takes memory
  void* memory = mmap(nullptr, bytes * sizeof(Cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return static_cast<Cell*>(memory);
}

// Finds the library that holds us: its constants, and its thread-local storage of this thread,
// which is where __shared__ variables are.
int find_library(dl_phdr_info* info, size_t, void*) {
  const auto self = reinterpret_cast<uintptr_t>(&find_library);
  uintptr_t begin = UINTPTR_MAX, end = 0;
  size_t local_bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    const uintptr_t start = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_TLS) local_bytes = header.p_memsz;
    if (header.p_type != PT_LOAD) continue;
    begin = std::min(begin, start);
    end = std::max(end, start + header.p_memsz);
  }
  if (self < begin || self >= end) return 0;
  image.begin = begin;
  image.end = end;
  const auto local = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
  if (kChecked && static_region.cells == nullptr) static_region.cells = new_cells(local_bytes);
  static_region.begin = local;
  static_region.end = local + local_bytes;
  return 1;
}

bool holds(const Region& region, uintptr_t address, size_t bytes) {
  return address >= region.begin && address + bytes <= region.end;
}

Region* find(uintptr_t address, size_t bytes) {
  for (Region* region : {&dynamic_region, &static_region}) {
    if (holds(*region, address, bytes)) return region;
  }
  const auto after = std::upper_bound(tensors.begin(), tensors.end(), address,
                                      [](uintptr_t a, const Region& r) { return a < r.begin; });
  if (after != tensors.begin() && holds(after[-1], address, bytes)) return &after[-1];
  return holds(image, address, bytes) && address - dynamic_region.begin > kLargestBlock ? &image
                                                                                        : nullptr;
}

const char* verb(Access access) { return access == Access::read ? "read" : "write"; }

[[noreturn]] void out_of_bounds(uintptr_t address, size_t bytes, Access access, const void* pc) {
  const Region* nearest = nullptr;
  size_t least = SIZE_MAX;
  const auto consider = [&](const Region& region) {
    if (region.begin == region.end) return;
    const size_t distance =
        address < region.begin ? region.begin - address : address + bytes - region.end;
    if (distance < least) {
      least = distance;
      nearest = &region;
    }
  };
  for (const Region& region : tensors) consider(region);
  consider(dynamic_region);
  for (const Fiber* f = fibers; f < fibers + block_threads; ++f) {
    if (address - reinterpret_cast<uintptr_t>(f->stack) < kStackBytes) {
      fault(pc, format("out-of-bounds %s of %zu bytes: a local variable of another thread",
                       verb(access), bytes));
    }
  }
  if (nearest == nullptr) {
    fault(pc, format("out-of-bounds %s of %zu bytes: no tensor is registered", verb(access),
                     bytes));
  }
  fault(pc, format("out-of-bounds %s of %zu bytes: the nearest is %s (%zu bytes), %s by %zu",
                   verb(access), bytes, nearest->name.c_str(), nearest->end - nearest->begin,
                   address < nearest->begin ? "which it precedes" : "whose end it passes", least));
}

// ---- races ----

bool in_this_block(const Event& event) { return event.phase >= first_of_block; }

bool can_race(const Event& past, bool shared) {
  if (past.access == Access::none || past.phase < first_of_launch) return false;
  return in_this_block(past) ? past.phase == phase : !shared;
}

bool concurrent(const Event& past, const Event& now, bool shared) {
  if (!can_race(past, shared)) return false;
  if (!in_this_block(past)) return true;  // no barrier orders two blocks of a grid
  if (past.thread == now.thread) return false;
  return past.thread / kWarp != now.thread / kWarp || past.warp_phase == now.warp_phase;
}

[[noreturn]] void race(const Region& region, uintptr_t address, const Event& past,
                       const Event& now, const void* pc) {
  const std::string what = format("race on %s, byte %zu: %s", region.name.c_str(),
                                  address - region.begin, verb(now.access));
  const std::string thread = std::to_string(past.thread);
  const std::string who = in_this_block(past) ? "thread number " + thread + " of the block"
                                              : "thread number " + thread + " of another block";
  fault(pc, what.c_str(), reinterpret_cast<void*>(image.begin + past.pc),
        ("no barrier since the " + std::string(verb(past.access)) + " by " + who).c_str());
}

void check_races(const Region& region, Cell& cell, uintptr_t address, const Event& now,
                 const void* pc) {
  const bool atomics = now.access == Access::atomic && cell.write.access == Access::atomic;
  if (!atomics && concurrent(cell.write, now, region.shared)) {
    race(region, address, cell.write, now, pc);
  }
  if (now.access == Access::read) return;
  for (const Event& past : cell.reads) {
    if (concurrent(past, now, region.shared)) race(region, address, past, now, pc);
  }
}

bool same_warp(const Event& a, const Event& b) {
  return in_this_block(a) == in_this_block(b) && a.thread / kWarp == b.thread / kWarp;
}

// Two readers are enough to tell whether a later writer races with any: of two in different warps
// one always does; of one warp, only those after its latest barrier matter.
void remember_read(Cell& cell, const Event& now, bool shared) {
  auto& [first, second] = cell.reads;
  if (!can_race(first, shared) || (in_this_block(first) && first.thread == now.thread)) {
    first = now;
  } else if (!same_warp(first, now)) {
    second = now;
  } else if (first.warp_phase != now.warp_phase) {
    first = now;
    if (same_warp(second, now)) second = {};
  } else if (!can_race(second, shared) || same_warp(second, now)) {
    second = now;
  }
}

Event event_of(Access access, const void* pc) {
  return {phase, warp_phases[current->number / kWarp],
          static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pc) - image.begin),
          static_cast<uint16_t>(current->number), access};
}

void check_filled(const Region& region, const Cell& cell, uintptr_t address, const void* pc) {
  if (cell.filled >= first_of_block && !cell.in_flight) return;
  fault(pc, format("read of %s memory: byte %zu of %s",
                   cell.in_flight ? "not yet copied (no wait for the asynchronous copy) shared"
                                  : "uninitialised shared",
                   address - region.begin, region.name.c_str()));
}

void fill(const Region& region, Cell& cell) {
  static_bytes_used += &region == &static_region && cell.filled < first_of_block;
  cell.filled = phase;
  cell.in_flight = false;
}

Region* checked_region(const void* memory, size_t bytes, Access access, const void* pc) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  if (address - reinterpret_cast<uintptr_t>(current->stack) < kStackBytes) return nullptr;
  Region* region = find(address, bytes);
  if (region == nullptr) out_of_bounds(address, bytes, access, pc);
  if (region == &image) return nullptr;
  if (region->cells == nullptr) {
    // a later launch may take more dynamic shared memory than this one
    const bool grows = region == &dynamic_region;
    region->cells = new_cells(grows ? kLargestBlock : region->end - region->begin);
  }
  return region;
}

}  // namespace

void memory_access(const void* memory, size_t bytes, Access access, const void* pc) {
  if (!kChecked || bytes == 0) return;
  const Region* region = checked_region(memory, bytes, access, pc);
  if (region == nullptr) return;
  const Event now = event_of(access, pc);
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  for (uintptr_t address = begin; address < begin + bytes; ++address) {
    Cell& cell = region->cells[address - region->begin];
    if (region->shared && access != Access::write) check_filled(*region, cell, address, pc);
    check_races(*region, cell, address, now, pc);
    if (access == Access::read) {
      remember_read(cell, now, region->shared);
    } else {
      cell.write = now;
      if (region->shared) fill(*region, cell);
    }
  }
}

void memory_copy_begins(void* to, size_t bytes, const void* pc) {
  if (!kChecked) return;
  memory_access(to, bytes, Access::write, pc);
  const Region* region = checked_region(to, bytes, Access::write, pc);
  Cell* cells = region->cells + (reinterpret_cast<uintptr_t>(to) - region->begin);
  for (size_t i = 0; i < bytes; ++i) cells[i].in_flight = true;
}

void memory_copy_ends(void* to, size_t bytes, const void* pc) {
  memory_access(to, bytes, Access::write, pc);
}

// ---- the course of a launch ----

void memory_begin_launch(size_t shared_bytes) {
  thread_local_anchor = 0;  // makes the storage exist
  dl_iterate_phdr(find_library, nullptr);
  dynamic_region.begin = reinterpret_cast<uintptr_t>(dynamic);
  dynamic_region.end = dynamic_region.begin + shared_bytes;
  first_of_launch = ++phase;
}

void memory_begin_block() {
  first_of_block = ++phase;
  static_bytes_used = 0;
  std::fill(std::begin(warp_phases), std::end(warp_phases), 0);
  std::memset(reinterpret_cast<void*>(static_region.begin), kPoison,
              static_region.end - static_region.begin);
  const size_t bytes = dynamic_region.end - dynamic_region.begin;
  std::memset(dynamic_bytes, kPoison, kGuard + bytes + kGuard);
}

const char* memory_end_block() {
  const auto touched = [](unsigned char byte) { return byte != kPoison; };
  const auto* end = reinterpret_cast<unsigned char*>(dynamic_region.end);
  if (std::any_of(dynamic_bytes, dynamic_bytes + kGuard, touched)) {
    return "out-of-bounds write before the start of dynamic shared memory";
  }
  if (std::any_of(end, end + kGuard, touched)) {
    return "out-of-bounds write past the end of dynamic shared memory";
  }
  const size_t bytes = dynamic_region.end - dynamic_region.begin;
  if (bytes + static_bytes_used > limit) {
    return format("%zu bytes of dynamic and %zu of static shared memory, but a block can have %zu",
                  bytes, static_bytes_used, limit);
  }
  return nullptr;
}

void memory_barrier() { ++phase; }

void memory_warp_barrier(unsigned warp) { ++warp_phases[warp]; }

void* dynamic_shared() { return dynamic; }

size_t shared_limit() { return limit; }

bool is_shared(const void* address) {
  const auto place = reinterpret_cast<uintptr_t>(address);
  return holds(static_region, place, 1) ||
         place - reinterpret_cast<uintptr_t>(dynamic_bytes) < sizeof dynamic_bytes;
}

int memset_device(void* to, int value, size_t bytes) {
  const bool known = !kChecked || bytes == 0 || find(reinterpret_cast<uintptr_t>(to), bytes);
  if (!known) return invalid_value;
  std::memset(to, value, bytes);
  return success;
}

void check_vector(const void* address, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
  fault(__builtin_return_address(0), format("misaligned %s of %zu bytes", what, bytes));
}

void atomic_access(void* address, size_t bytes, const void* pc) {
  memory_access(address, bytes, Access::atomic, pc);
}

}  // namespace cuda_on_host

// ---- for host.py ----

extern "C" {

void cuda_on_host_register(void* memory, size_t bytes, const char* name) {
  using namespace cuda_on_host;
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const auto place = std::upper_bound(tensors.begin(), tensors.end(), begin,
                                      [](uintptr_t a, const Region& r) { return a < r.begin; });
  tensors.insert(place, {begin, begin + bytes, name, nullptr, false});
}

void cuda_on_host_forget(void* memory) {
  using namespace cuda_on_host;
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const auto region = std::find_if(tensors.begin(), tensors.end(),
                                   [&](const Region& r) { return r.begin == begin; });
  if (region == tensors.end()) return;
  if (region->cells) munmap(region->cells, (region->end - region->begin) * sizeof(Cell));
  tensors.erase(region);
}

void cuda_on_host_shared_limit(size_t bytes) {
  cuda_on_host::limit = std::min(bytes, cuda_on_host::kLargestBlock);
}
}
