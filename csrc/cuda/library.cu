#include <cuda_runtime.h>

#include "params.h"

// What an error code of any function means.
SEAMO_EXPORT const char* seamo_error(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}
