// nvcuda::wmma for a host compiler: 16x16x16 on half and bfloat16, 16x16x8 on tf32.
//
// Which lane holds which element is permuted, differently for every kind of fragment: CUDA leaves
// it unspecified, so that a kernel which assumes anything about it must fail.

#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda::wmma {

struct row_major;
struct col_major;
struct matrix_a;
struct matrix_b;
struct accumulator;
namespace precision {
struct tf32;
}
enum layout_t { mem_row_major, mem_col_major };

namespace detail {

template <typename T>
struct Storage {
  using type = T;
};
template <>
struct Storage<precision::tf32> {
  using type = float;
};

// Elements of an operand that a lane holds; a half appears in two lanes.
template <typename T>
constexpr int kOperand = 0;
template <>
constexpr int kOperand<__half> = 16;
template <>
constexpr int kOperand<__nv_bfloat16> = 8;
template <>
constexpr int kOperand<precision::tf32> = 4;

}  // namespace detail

template <typename Use, int m, int n, int k, typename T, typename Layout = void>
struct __align__(8) fragment {
  static constexpr bool is_a = std::is_same<Use, matrix_a>::value;
  static constexpr bool is_b = std::is_same<Use, matrix_b>::value;
  static constexpr bool is_operand = is_a || is_b;
  static constexpr bool by_column = std::is_same<Layout, col_major>::value;
  static constexpr bool is_tf32 = std::is_same<T, precision::tf32>::value;
  using element_type = T;
  using storage_element_type = typename detail::Storage<T>::type;
  enum { num_elements = is_operand ? detail::kOperand<T> : 8, num_storage_elements = num_elements };

  static_assert(m == 16 && n == 16 && (k == 16 || k == 8), "only 16x16x16 and 16x16x8");
  static_assert(!is_operand || (num_elements > 0 && is_tf32 == (k == 8)),
                "operands: half and bfloat16 with k = 16, tf32 with k = 8");
  static_assert(is_operand || std::is_same<T, float>::value ||
                    (k == 16 && std::is_same<T, __half>::value),
                "accumulators: float, or half with k = 16");
  static_assert(is_operand == !std::is_void<Layout>::value, "a layout belongs to operands");

  storage_element_type x[num_elements];

  static constexpr cuda_on_host::Fragment kind() {
    return {is_b ? k : m, is_a ? k : n, num_elements, sizeof(storage_element_type),
            (is_a ? 5u : is_b ? 11u : 18u) + by_column * 3u + (k == 8) * 7u};
  }
};

template <typename F>
CUDA_ON_HOST void fill_fragment(F& f, const typename F::storage_element_type& value) {
  for (int i = 0; i < F::num_elements; ++i) f.x[i] = value;
}

template <typename Use, int m, int n, int k, typename T, typename Layout>
CUDA_ON_HOST void load_matrix_sync(
    fragment<Use, m, n, k, T, Layout>& f,
    const typename fragment<Use, m, n, k, T, Layout>::storage_element_type* from, unsigned leading,
    CUDA_ON_HOST_SITE) {
  static_assert(f.is_operand, "loading an accumulator takes a layout");
  cuda_on_host::load_matrix(f.kind(), f.x, from, leading, f.by_column, site);
}

template <int m, int n, int k, typename T>
CUDA_ON_HOST void load_matrix_sync(fragment<accumulator, m, n, k, T>& f, const T* from,
                                   unsigned leading, layout_t layout, CUDA_ON_HOST_SITE) {
  cuda_on_host::load_matrix(f.kind(), f.x, from, leading, layout == mem_col_major, site);
}

template <int m, int n, int k, typename T>
CUDA_ON_HOST void store_matrix_sync(T* to, const fragment<accumulator, m, n, k, T>& f,
                                    unsigned leading, layout_t layout, CUDA_ON_HOST_SITE) {
  cuda_on_host::store_matrix(f.kind(), f.x, to, leading, layout == mem_col_major, site);
}

template <int m, int n, int k, typename T, typename LayoutA, typename LayoutB, typename D,
          typename C>
CUDA_ON_HOST void mma_sync(fragment<accumulator, m, n, k, D>& d,
                           const fragment<matrix_a, m, n, k, T, LayoutA>& a,
                           const fragment<matrix_b, m, n, k, T, LayoutB>& b,
                           const fragment<accumulator, m, n, k, C>& c, CUDA_ON_HOST_SITE) {
  float left[a.num_elements], right[b.num_elements], sum[c.num_elements], result[d.num_elements];
  for (int i = 0; i < a.num_elements; ++i) left[i] = a.x[i];
  for (int i = 0; i < b.num_elements; ++i) right[i] = b.x[i];
  for (int i = 0; i < c.num_elements; ++i) sum[i] = c.x[i];
  if constexpr (a.is_tf32) {
    bool rounded = true;
    for (int i = 0; i < a.num_elements; ++i) {
      rounded &= ((__float_as_uint(left[i]) | __float_as_uint(right[i])) & 0x1fff) == 0;
    }
    if (!rounded) cuda_on_host::trap("tf32 fragment not rounded by __float_to_tf32", site);
  }
  cuda_on_host::multiply(a.kind(), left, b.kind(), right, c.kind(), sum, result, site);
  for (int i = 0; i < d.num_elements; ++i) d.x[i] = D(result[i]);
}

// To nearest, ties away from zero.
CUDA_ON_HOST float __float_to_tf32(float value) {
  if (!(fabsf(value) <= 3.402823466e+38f)) return value;  // infinite or NaN
  return __uint_as_float((__float_as_uint(value) + 0x1000) & ~0x1fffu);
}

}  // namespace nvcuda::wmma
