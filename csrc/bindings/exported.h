// Functions of C++ as functions of the Python module. Only module.cpp has the headers of pybind11.
//
//   static const Exported tm_attention_function("tm_attention", &tm_attention);
//
// The module then has a function tm_attention, which takes its arguments by position and returns a
// tensor, a tuple of several, or None for an empty list: what the kernels do not take, such as
// other dtypes and whatever the checks in Python refuse.

#pragma once

#include <Python.h>

#include <functional>
#include <tuple>
#include <utility>

#include "tensors.h"

namespace seamo {

// An argument as a value of C++. Raises TypeError if it is something else.
template <typename Value>
Value from_python(PyObject* argument);

template <>
at::Tensor from_python(PyObject*);
template <>
MaybeTensor from_python(PyObject*);
template <>
Tensors from_python(PyObject*);
template <>
bool from_python(PyObject*);
template <>
int64_t from_python(PyObject*);
template <>
double from_python(PyObject*);
template <>
std::optional<double> from_python(PyObject*);
template <>
std::vector<bool> from_python(PyObject*);
template <>
std::vector<int64_t> from_python(PyObject*);
template <>
at::ScalarType from_python(PyObject*);

class Exported {
 public:
  template <typename... Arguments>
  Exported(const char* name, Tensors (*function)(Arguments...)) {
    add(name, sizeof...(Arguments), [function](PyObject* const* given) {
      return call(function, given, std::index_sequence_for<Arguments...>());
    });
  }

 private:
  using Call = std::function<Tensors(PyObject* const*)>;

  static void add(const char* name, size_t arguments, Call call);

  class WithoutLock {
   public:
    WithoutLock() : state_(PyEval_SaveThread()) {}
    ~WithoutLock() { PyEval_RestoreThread(state_); }

   private:
    PyThreadState* state_;
  };

  template <typename... Arguments, size_t... kPlaces>
  static Tensors call(Tensors (*function)(Arguments...), PyObject* const* given,
                      std::index_sequence<kPlaces...>) {
    const std::tuple<std::decay_t<Arguments>...> arguments{
        from_python<std::decay_t<Arguments>>(given[kPlaces])...};
    const WithoutLock without_lock;
    return std::apply(function, arguments);
  }
};

}  // namespace seamo
