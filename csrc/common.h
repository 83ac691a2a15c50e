// What every C++ kernel for the CPU shares. The conventions of csrc:
//
//   csrc/<op>.h                one plain struct of raw pointers, sizes and strides (in elements,
//                              not in bytes) for each direction, and the functions that take it
//   csrc/cpu/<op>.cpp          the algorithm, without torch headers
//   csrc/cpu/<op>.isa.h        kernels that exist once for each instruction set: cpu/every_isa.h
//   csrc/bindings/<op>.cpp     checks tensors, allocates results, fills the struct, and exports the
//                              functions to Python: bindings/exported.h
//   csrc/bindings/torch.cpp    what the algorithms ask of torch: threads, memory, matrix products
//   csrc/cuda/                 the CUDA kernels, a library of their own: cuda/params.h
//
// The build compiles every .cpp of cpu/ and bindings/ into one module. Headers of Python, pybind11
// and autograd take ten times as long to compile as a kernel: each is included by one .cpp.
//
// Storage is float or bf16, accumulation float. Results must not depend on the number of threads:
// split the work into blocks of a fixed size, write what a block finds to its own place, and add
// those in the order of the blocks.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "rows.h"

namespace seamo {

// Calls body(context, begin, end) for parts of [0, count) of at least `grain`, on torch's threads;
// it returns when all are done. The parts depend on the number of threads: results must not.
void run_parallel(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
                  void* context);

// The number of torch's threads.
int64_t thread_count();

// parallel_for(rows, 16, [&](int64_t begin, int64_t end) { ... });
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  run_parallel(
      count, grain,
      [](void* context, int64_t begin, int64_t end) {
        (*static_cast<const Body*>(context))(begin, end);
      },
      const_cast<Body*>(&body));
}

// The upper half of a float: what torch.bfloat16 stores.
struct bf16 {
  uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

template <typename Scalar>
inline Scalar from_float(float value) {
  if constexpr (std::is_same_v<Scalar, bf16>) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (value != value) return bf16{0x7fc0};
    return bf16{static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
  } else {
    return value;
  }
}

// The element that row `row` begins with.
inline int64_t offset_of(const Rows& rows, int64_t row) {
  return row / rows.inner * rows.outer_stride + row % rows.inner * rows.stride;
}

// Rows of bf16 if `half`, else of float.
struct StoredRows : Rows {
  bool half;
};

// Patch numbers, contiguous.
struct Index {
  const void* data;
  bool is_long;  // int64, else int32

  int64_t operator[](int64_t i) const {
    return is_long ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory on a cache line, not initialised; NaN where torch fills new memory (in the tests).
void* allocate(int64_t bytes);
void release(void* memory);

// Values that live as long as the object, not initialised.
template <typename Value>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<Value*>(allocate(count * sizeof(Value)))) {}
  ~Scratch() { release(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  Value* data() const { return data_; }

 private:
  Value* data_;
};

// Instruction sets, each including those before it.
enum class Isa : int { generic = 0, avx2 = 1, avx512 = 2 };

// The best that this processor has and limit_isa allows.
Isa isa();

// Uses no more than `most` from now on; for tests.
void limit_isa(Isa most);

}  // namespace seamo
