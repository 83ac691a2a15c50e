#include "autograd.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

namespace seamo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Mask = std::vector<bool>;

std::map<std::string, Backward>& backwards() {
  static std::map<std::string, Backward> known;
  return known;
}

// The gradients, which raise an error if they are differentiated themselves.
variable_list without_derivative(const std::string& op, variable_list grads) {
  variable_list found;
  for (const at::Tensor& grad : grads) {
    if (grad.defined()) found.push_back(grad.detach().requires_grad_());
  }
  const auto error = std::make_shared<torch::autograd::DelayedError>(
      "seamo::_" + op + "_backward has no derivative", static_cast<int64_t>(found.size()));
  found = (*error)(std::move(found));
  size_t next = 0;
  for (at::Tensor& grad : grads) {
    if (grad.defined()) grad = found[next++];
  }
  return grads;
}

Mask mask_of(const c10::IValue& value) {
  const c10::List<bool> list = value.toBoolList();
  return {list.begin(), list.end()};
}

// All operations are one function to autograd. Whatever the backward pass needs is in the context,
// where compiled autograd finds it.
class Operation : public torch::autograd::Function<Operation> {
 public:
  static variable_list forward(AutogradContext* ctx, at::TensorList, const char* op,
                               const Mask& given, const Forward& body) {
    Kept kept;
    Tensors results = body(&kept);
    ctx->save_for_backward(kept.tensors);
    ctx->saved_data["op"] = op;
    ctx->saved_data["given"] = given;
    ctx->saved_data["numbers"] = kept.numbers;
    ctx->saved_data["eps"] = kept.eps;
    ctx->mark_non_differentiable({results.begin() + 1, results.end()});
    return results;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const std::string op = ctx->saved_data["op"].toStringRef();
    const Kept kept{ctx->get_saved_variables(), ctx->saved_data["numbers"].toIntVector(),
                    ctx->saved_data["eps"].toDouble()};
    const Mask given = mask_of(ctx->saved_data["given"]);
    Mask needed;
    size_t edges = 0;
    for (const bool is_given : given) {
      needed.push_back(is_given && ctx->needs_input_grad(edges++));
    }
    variable_list all, found;
    {
      const at::NoGradGuard guard;
      all = backwards().at(op)(grads[0], kept, needed);
    }
    for (size_t i = 0; i < given.size(); ++i) {
      if (given[i]) found.push_back(needed[i] ? all[i] : at::Tensor());
    }
    if (at::GradMode::is_enabled()) found = without_derivative(op, std::move(found));
    found.resize(edges + 3);  // the other arguments of forward
    return found;
  }
};

c10::IValue value_of(const Argument& argument) {
  return std::visit([](const auto& value) { return c10::IValue(value); }, argument);
}

}  // namespace

Differentiable::Differentiable(const char* op, Backward backward) : op_(op) {
  backwards()[op] = backward;
}

Tensors Differentiable::operator()(const Tensors& inputs, const Forward& forward) const {
  Tensors defined;
  Mask given;
  bool wanted = false;
  for (const at::Tensor& input : inputs) {
    given.push_back(input.defined());
    if (!input.defined()) continue;
    defined.push_back(input);
    wanted |= input.requires_grad();
  }
  if (!wanted || !at::GradMode::is_enabled()) return forward(nullptr);
  return Operation::apply(at::TensorList(defined), op_, given, forward);
}

bool graph_is_kept() { return torch::autograd::get_current_graph_task_keep_graph(); }

Tensors call_operator(const char* name, const std::vector<Argument>& arguments) {
  std::vector<c10::IValue> stack;
  for (const Argument& argument : arguments) stack.push_back(value_of(argument));
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
  Tensors results;
  for (const c10::IValue& value : stack) results.push_back(value.toTensor());
  return results;
}

}  // namespace seamo
