// What the algorithms of csrc/cpu ask of torch: threads, memory, products of matrices.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm_ops.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm_ops.h>
#include <c10/core/impl/alloc_cpu.h>

#include "../matrix.h"

#if AT_PARALLEL_OPENMP && !defined(_OPENMP)
#error "compile with -fopenmp: without it at::parallel_for runs on one thread"
#endif

extern "C" int MKL_Set_Num_Threads_Local(int) __attribute__((weak));

namespace seamo {
namespace {

at::Tensor tensor_of(const MatrixView& x) {
  return at::from_blob(x.data, {x.rows, x.columns}, {x.stride, x.column_stride}, at::kFloat);
}

}  // namespace

void run_parallel(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
                  void* context) {
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

int64_t thread_count() { return at::get_num_threads(); }

void* allocate(int64_t bytes) {
  void* memory = c10::alloc_cpu(bytes);
  const at::Context& context = at::globalContext();
  const bool fill = context.deterministicFillUninitializedMemory();
  if (bytes > 0 && fill && context.deterministicAlgorithms()) {  // of no bytes there is no address
    std::memset(memory, 0xff, bytes);
  }
  return memory;
}

void release(void* memory) { c10::free_cpu(memory); }

void product(const MatrixView& to, const MatrixView& a, const MatrixView& b) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  at::Tensor result = tensor_of(to);
  at::_ops::mm_out::call(tensor_of(a), tensor_of(b), result);
}

void add_product(const MatrixView& to, const MatrixView& a, const MatrixView& b) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  at::Tensor result = tensor_of(to);
  at::_ops::addmm_out::call(result, tensor_of(a), tensor_of(b), 1, 1, result);
}

OneThread::OneThread() : before_(MKL_Set_Num_Threads_Local ? MKL_Set_Num_Threads_Local(1) : 0) {}

OneThread::~OneThread() {
  if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
}

}  // namespace seamo
