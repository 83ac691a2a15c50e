// What Python passes to the CUDA kernels. The conventions of csrc/cuda:
//
//   SEAMO_PARAMS(CopyRows, Rows rows; int64_t storage, count, width; void* to; void* stream;)
//   SEAMO_EXPORT int seamo_copy_rows(const CopyRows* params);
//
// A function is called with a pointer to the plain struct of its name, launches kernels on its
// stream and returns the first error, 0 if there is none. The library exports the declaration of
// each struct as text, and kernels/_cuda.py makes the same struct of it: the two cannot differ.
// Fields are pointers, int64_t, int32_t, float, double, such structs, and arrays of these.
//
// Strides are in elements, not in bytes. Kernels compute in float, address in int64_t, and add in
// an order that depends on sizes alone.

#pragma once

#include <cstdint>

#define SEAMO_EXPORT extern "C" __attribute__((visibility("default")))

#define SEAMO_PARAMS(name, ...)                                                                   \
  struct name {                                                                                   \
    __VA_ARGS__                                                                                   \
  };                                                                                              \
  extern "C" inline __attribute__((used, visibility("default"))) const char*                      \
  seamo_fields_of_##name() {                                                                      \
    return #__VA_ARGS__;                                                                          \
  }                                                                                               \
  extern "C" inline __attribute__((used, visibility("default"))) int64_t seamo_size_of_##name() { \
    return sizeof(name);                                                                          \
  }

#include "../rows.h"

namespace seamo {

// How numbers are stored; kernels/_cuda.py has the same list.
enum Storage : int64_t { kFloat, kHalf, kBfloat16, kUint8, kUint16, kInt16, kInt32, kInt64, kBool };

// Rows of one block.
SEAMO_PARAMS(Matrix, const void* data; int64_t stride;)

}  // namespace seamo
