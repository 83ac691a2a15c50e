// Gradients in eager mode without the way through Python; elsewhere the operators of Python have them.

#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensors.h"

namespace seamo {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline bool requires_grad(const at::Tensor& x) { return x.requires_grad(); }
inline bool requires_grad(const MaybeTensor& x) { return x && x->requires_grad(); }

// Whether a gradient of one of these is wanted.
template <typename... Tensors>
bool wants_gradient(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (... || requires_grad(tensors));
}

// Calls an operator through the dispatcher, for gradients that are no ordinary tensors.
inline variable_list call_operator(const char* name, std::vector<c10::IValue> stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
  variable_list results;
  for (const c10::IValue& value : stack) results.push_back(value.toTensor());
  return results;
}

// Undefined where a gradient is not needed.
inline variable_list only(const std::vector<bool>& needed, variable_list grads) {
  for (size_t i = 0; i < needed.size(); ++i) {
    if (!needed[i]) grads[i] = at::Tensor();
  }
  return grads;
}

// The gradients that `body` returns; they raise an error if they are differentiated themselves.
template <typename Body>
variable_list differentiate_once(const char* op, const Body& body) {
  variable_list grads;
  {
    const at::NoGradGuard guard;
    grads = body();
  }
  if (!at::GradMode::is_enabled()) return grads;
  variable_list found;
  for (const at::Tensor& grad : grads) {
    if (grad.defined()) found.push_back(grad.detach().requires_grad_());
  }
  const auto error = std::make_shared<torch::autograd::DelayedError>(
      "seamo::_" + std::string(op) + "_backward has no derivative",
      static_cast<int64_t>(found.size()));
  found = (*error)(std::move(found));
  size_t next = 0;
  for (at::Tensor& grad : grads) {
    if (grad.defined()) grad = found[next++];
  }
  return grads;
}

}  // namespace seamo
