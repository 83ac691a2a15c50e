// Fragments of nvcuda::wmma.

#include <cstring>

#include "internal.h"

namespace cuda_on_host {

namespace {

constexpr unsigned kAll = ~0u;

// Where element i of a lane stands in the matrix, counted row by row. An odd factor permutes a
// power of two.
unsigned position(const Fragment& kind, unsigned lane, unsigned i) {
  const unsigned factor = 2 * kind.key + 37, shift = 29 * kind.key;
  return ((lane * kind.count + i) * factor + shift) % (kind.rows * kind.columns);
}

size_t offset(const Fragment& kind, unsigned lane, unsigned i, unsigned leading, bool by_column) {
  const unsigned place = position(kind, lane, i);
  const size_t row = place / kind.columns, column = place % kind.columns;
  return (by_column ? column * leading + row : row * leading + column) * kind.bytes;
}

// All lanes must come with the same arguments, aligned as wmma asks for.
void together(Operation operation, const void* memory, unsigned leading, const Fragment& kind,
              Site site) {
  if (reinterpret_cast<uintptr_t>(memory) % 32 != 0) {
    fault(site, "wmma: the pointer is not aligned to 256 bits");
  }
  if (leading * kind.bytes % 16 != 0) {
    fault(site, format("wmma: a leading dimension of %u elements is no multiple of 16 bytes",
                       leading));
  }
  current->message.value = reinterpret_cast<uintptr_t>(memory);
  current->message.source = leading;
  current->message.output = nullptr;
  collective(operation, kAll, site, [](unsigned lanes, Fiber* warp) {
    for (unsigned i = 0; i < kWarp; ++i) {
      const bool same = lanes == kAll && warp[i].message.value == warp->message.value &&
                        warp[i].message.source == warp->message.source;
      if (!same) fault(warp->wait.site, "wmma: the 32 lanes disagree on the arguments");
    }
  });
}

}  // namespace

void load_matrix(Fragment kind, void* elements, const void* from, unsigned leading, bool by_column,
                 Site site) {
  const void* pc = __builtin_return_address(0);
  together(Operation::load_matrix, from, leading, kind, site);
  for (int i = 0; i < kind.count; ++i) {
    const auto* source =
        static_cast<const unsigned char*>(from) + offset(kind, lane(), i, leading, by_column);
    memory_access(source, kind.bytes, Access::read, pc);
    std::memcpy(static_cast<unsigned char*>(elements) + i * kind.bytes, source, kind.bytes);
  }
}

void store_matrix(Fragment kind, const void* elements, void* to, unsigned leading, bool by_column,
                  Site site) {
  const void* pc = __builtin_return_address(0);
  together(Operation::store_matrix, to, leading, kind, site);
  for (int i = 0; i < kind.count; ++i) {
    auto* target = static_cast<unsigned char*>(to) + offset(kind, lane(), i, leading, by_column);
    memory_access(target, kind.bytes, Access::write, pc);
    std::memcpy(target, static_cast<const unsigned char*>(elements) + i * kind.bytes, kind.bytes);
  }
}

void multiply(Fragment a_kind, const float* a, Fragment b_kind, const float* b, Fragment c_kind,
              const float* c, float* d, Site site) {
  const Fragment kinds[] = {a_kind, b_kind, c_kind};
  Message& message = current->message;
  message.inputs[0] = a;
  message.inputs[1] = b;
  message.inputs[2] = c;
  message.kinds = kinds;
  message.output = d;
  collective(Operation::mma, kAll, site, [](unsigned lanes, Fiber* warp) {
    if (lanes != kAll) fault(warp->wait.site, "wmma: a warp of fewer than 32 lanes");
    const Fragment* kinds = warp->message.kinds;
    float matrices[3][256];
    for (int m = 0; m < 3; ++m) {
      for (unsigned l = 0; l < kWarp; ++l) {
        const auto* own = static_cast<const float*>(warp[l].message.inputs[m]);
        for (int i = 0; i < kinds[m].count; ++i) matrices[m][position(kinds[m], l, i)] = own[i];
      }
    }
    const auto& [left, right, sum] = matrices;
    const int depth = kinds[0].columns;
    float result[256];
    std::memcpy(result, sum, sizeof result);
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < depth; ++k) {
        for (int column = 0; column < 16; ++column) {
          result[row * 16 + column] += left[row * depth + k] * right[k * 16 + column];
        }
      }
    }
    for (unsigned l = 0; l < kWarp; ++l) {
      for (int i = 0; i < kinds[2].count; ++i) {
        warp[l].message.output[i] = result[position(kinds[2], l, i)];
      }
    }
  });
}

}  // namespace cuda_on_host
