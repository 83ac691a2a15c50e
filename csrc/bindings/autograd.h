// Gradients in eager mode without the way through Python; elsewhere the operators of Python have
// them. The headers of autograd, which take long to compile, are in autograd.cpp alone.

#pragma once

#include <functional>
#include <variant>

#include "tensors.h"

namespace seamo {

// What the forward pass of an operation leaves for its backward pass.
struct Kept {
  Tensors tensors;
  std::vector<int64_t> numbers;
  double eps = 0;
};

// The gradients of the inputs; those that are not needed may be undefined. `grad` is of the first
// result: there is no other gradient.
using Backward = Tensors (*)(const at::Tensor& grad, const Kept& kept,
                             const std::vector<bool>& needed);

// The results. What the backward pass needs goes into `kept`, null if there will be none.
using Forward = std::function<Tensors(Kept* kept)>;

// An operation that can be differentiated once. One static object each.
class Differentiable {
 public:
  Differentiable(const char* op, Backward backward);

  // Runs `forward`. `inputs` are all tensors whose gradient may be asked for, and may be undefined.
  Tensors operator()(const Tensors& inputs, const Forward& forward) const;

 private:
  const char* op_;
};

inline at::Tensor or_undefined(const MaybeTensor& x) { return x.value_or(at::Tensor()); }

// Whether each gradient can be used by somebody else than the backward pass that is running.
bool graph_is_kept();

// Calls an operator through the dispatcher, for gradients that are no ordinary tensors.
using Argument = std::variant<at::Tensor, int64_t, double, bool, std::vector<bool>>;
Tensors call_operator(const char* name, const std::vector<Argument>& arguments);

}  // namespace seamo
