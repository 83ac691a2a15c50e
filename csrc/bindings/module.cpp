// The Python module of the CPU kernels: the functions that the other files export, and which
// instruction set they use.

#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "exported.h"

namespace py = pybind11;

namespace seamo {
namespace {

struct Function {
  const char* name;
  size_t arguments;
  std::function<Tensors(PyObject* const*)> call;

  py::object operator()(const py::args& given) const {
    if (given.size() != arguments) {
      throw py::type_error(std::string(name) + " takes " + std::to_string(arguments) +
                           " arguments, but got " + std::to_string(given.size()));
    }
    try {
      return to_python(call(PySequence_Fast_ITEMS(given.ptr())));
    } catch (const IndexError& error) {
      throw py::index_error(error.message);
    }
  }

  static py::object to_python(const Tensors& results) {
    if (results.empty()) return py::none();
    if (results.size() == 1) return py::cast(results[0]);
    py::tuple tuple(results.size());
    for (size_t i = 0; i < results.size(); ++i) tuple[i] = results[i];
    return tuple;
  }
};

std::vector<Function>& functions() {
  static std::vector<Function> known;
  return known;
}

template <typename Value>
Value cast(PyObject* argument) {
  try {
    return py::cast<Value>(py::handle(argument));
  } catch (const py::cast_error&) {
    throw py::type_error("a C++ kernel got " +
                         py::repr(py::type::of(argument)).cast<std::string>());
  }
}

}  // namespace

#define SEAMO_FROM_PYTHON(Value)          \
  template <>                             \
  Value from_python(PyObject* argument) { \
    return cast<Value>(argument);         \
  }

SEAMO_FROM_PYTHON(at::Tensor)
SEAMO_FROM_PYTHON(MaybeTensor)
SEAMO_FROM_PYTHON(Tensors)
SEAMO_FROM_PYTHON(bool)
SEAMO_FROM_PYTHON(int64_t)
SEAMO_FROM_PYTHON(double)
SEAMO_FROM_PYTHON(std::optional<double>)
SEAMO_FROM_PYTHON(std::vector<bool>)
SEAMO_FROM_PYTHON(std::vector<int64_t>)
SEAMO_FROM_PYTHON(at::ScalarType)

void Exported::add(const char* name, size_t arguments, Call call) {
  functions().push_back({name, arguments, std::move(call)});
}

}  // namespace seamo

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("isa", [] { return static_cast<int>(seamo::isa()); });
  module.def("limit_isa", [](int most) { seamo::limit_isa(static_cast<seamo::Isa>(most)); });
  for (const seamo::Function& function : seamo::functions()) {
    module.def(function.name, function);
  }
}
