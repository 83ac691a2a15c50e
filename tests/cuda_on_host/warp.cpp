// Shuffles, votes and barriers of a warp; asynchronous copies of a thread.

#include <algorithm>
#include <cstring>

#include "internal.h"

namespace cuda_on_host {

unsigned lane() { return current->number % kWarp; }

namespace {

Fiber* warp_of(const Fiber& fiber) { return fibers + fiber.number / kWarp * kWarp; }

// Lanes that the warp has: the last one of a block may be incomplete.
unsigned existing_lanes(const Fiber& fiber) {
  const unsigned count = std::min(kWarp, block_threads - fiber.number / kWarp * kWarp);
  return count == kWarp ? ~0u : (1u << count) - 1;
}

}  // namespace

unsigned active_lanes() {
  const Fiber* warp = warp_of(*current);
  unsigned mask = 0;
  for (unsigned i = 0; i < kWarp; ++i) {
    if (existing_lanes(*current) >> i & 1) mask |= (warp[i].status != Status::done) << i;
  }
  return mask;
}

void collective(Operation operation, unsigned mask, Site site, Complete complete) {
  Fiber& self = *current;
  Fiber* warp = warp_of(self);
  if ((mask >> lane() & 1) == 0) {
    fault(site, format("%s by a lane that its mask %08x does not name", name_of(operation), mask));
  }
  self.wait = {operation, mask, site};
  const unsigned expected = mask & existing_lanes(self);
  for (unsigned i = 0; i < kWarp; ++i) {
    if (&warp[i] == &self || (expected >> i & 1) == 0) continue;
    if (warp[i].status != Status::waiting || !same(warp[i].wait, self.wait)) return suspend();
  }
  complete(expected, warp);
  for (unsigned i = 0; i < kWarp; ++i) {
    if (&warp[i] != &self && (expected >> i & 1) != 0) warp[i].status = Status::ready;
  }
}

void warp_barrier(unsigned mask, Site site) {
  collective(Operation::syncwarp, mask, site, [](unsigned lanes, Fiber* warp) {
    if (lanes == existing_lanes(*warp)) memory_warp_barrier(warp->number / kWarp);
  });
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  current->message.value = predicate;
  collective(Operation::vote, mask, site, [](unsigned lanes, Fiber* warp) {
    unsigned votes = 0;
    for (unsigned i = 0; i < kWarp; ++i) {
      if (lanes >> i & 1) votes |= (warp[i].message.value != 0) << i;
    }
    for (unsigned i = 0; i < kWarp; ++i) {
      if (lanes >> i & 1) warp[i].message.value = votes;
    }
  });
  return static_cast<unsigned>(current->message.value);
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, Site site) {
  const unsigned given = mask & existing_lanes(*current);
  if (source >= kWarp || (given >> source & 1) == 0) {
    fault(site, format("a shuffle reads lane %u, which does not take part", source));
  }
  current->message.value = value;
  current->message.source = source;
  collective(Operation::shuffle, mask, site, [](unsigned lanes, Fiber* warp) {
    uint64_t values[kWarp];
    for (unsigned i = 0; i < kWarp; ++i) values[i] = lanes >> i & 1 ? warp[i].message.value : 0;
    for (unsigned i = 0; i < kWarp; ++i) {
      if (lanes >> i & 1) warp[i].message.value = values[warp[i].message.source];
    }
  });
  return current->message.value;
}

// ---- asynchronous copies ----

void copy_async(void* to, const void* from, size_t bytes, size_t zeros) {
  const void* pc = __builtin_return_address(0);
  const auto misaligned = [&](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % bytes != 0;
  };
  if ((bytes != 4 && bytes != 8 && bytes != 16) || zeros > bytes) {
    fault(pc, format("asynchronous copy of %zu bytes, %zu of them zeros", bytes, zeros));
  }
  if (misaligned(to) || misaligned(from)) {
    fault(pc, format("asynchronous copy of %zu bytes is misaligned", bytes));
  }
  if (!is_shared(to) || is_shared(from)) {
    fault(pc, "an asynchronous copy goes from global to shared memory");
  }
  memory_access(from, bytes - zeros, Access::read, pc);
  memory_copy_begins(to, bytes, pc);
  Copy copy = {static_cast<unsigned char*>(to), {}, static_cast<unsigned>(bytes),
               current->batches};
  std::memcpy(copy.data, from, bytes - zeros);
  std::memset(to, kPoison, bytes);  // whoever does not wait reads this
  current->copies.push_back(copy);
}

void copy_commit() { ++current->batches; }

void copy_wait(unsigned newest) {
  const void* pc = __builtin_return_address(0);
  Fiber& self = *current;
  const auto arrived = [&](const Copy& copy) { return copy.batch + newest < self.batches; };
  for (const Copy& copy : self.copies) {
    if (!arrived(copy)) continue;
    memory_copy_ends(copy.to, copy.bytes, pc);
    std::memcpy(copy.to, copy.data, copy.bytes);
  }
  self.copies.erase(std::remove_if(self.copies.begin(), self.copies.end(), arrived),
                    self.copies.end());
}

}  // namespace cuda_on_host
