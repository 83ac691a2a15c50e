// What every C++ kernel of seamo_fast shares. The conventions of csrc:
//
//   csrc/<op>.h            one plain struct of raw pointers, sizes and strides (in elements, not in
//                          bytes) for each direction, and the functions that take it
//   csrc/cpu/<op>.cpp      the kernels; no torch headers. setup.py compiles every csrc/cpu/*.cpp
//   csrc/cpu/<op>.inc      kernels that exist once for each instruction set, see cpu/every_isa.h
//   csrc/bindings/*.cpp    turn tensors into the struct and allocate the outputs; the only files
//                          with torch headers. All but cuda*.cpp are one module, defined in
//                          cpu.cpp: another file exports `void bind_<op>(pybind11::module_&)`, in
//                          the global namespace, which cpu.cpp declares and calls
//
// Storage is float or bf16, accumulation float. Results must not depend on the number of threads:
// split the work into blocks of a fixed size, write what a block finds to its own place, and add
// those in the order of the blocks.

#pragma once

#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

namespace seamo {

// Calls body(context, begin, end) for parts of [0, count) of at least `grain`, on torch's threads;
// it returns when all are done. The parts depend on the number of threads: results must not.
void run_parallel(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
                  void* context);

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

// Rows whose values follow one another, in blocks of `inner` rows: what is left of the leading
// dimensions of a tensor when those that can be one are made one.
struct Rows {
  void* data;
  int64_t inner;  // rows in a block
  int64_t outer_stride, stride;
  bool half;  // bf16, else float

  int64_t offset(int64_t row) const { return row / inner * outer_stride + row % inner * stride; }
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

// Memory for values, not initialised, on a cache line.
template <typename Value>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<Value*>(::operator new(count * sizeof(Value), kAlignment))) {}
  ~Scratch() { ::operator delete(data_, kAlignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  Value* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  Value* data_;
};

// Instruction sets, each including those before it.
enum class Isa : int { generic = 0, avx2 = 1, avx512 = 2 };

// The best that this processor has and limit_isa allows.
Isa isa();

// Uses no more than `most` from now on; for tests.
void limit_isa(Isa most);

}  // namespace seamo
