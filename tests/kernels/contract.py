"""What every operation promises, whichever backend computes it; results and gradients by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from hypothesis import given, settings
from torch import Tensor

from seamo_fast.kernels import _registry
from tests.kernels import cuda_host
from tests.kernels.budget import assert_within_budget, moved

Results = dict[str, Tensor]


EVERY_DTYPE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Backend(NamedTuple):
    """Where the kernels of a backend run, and what they leave to the reference."""

    name: str
    device: str
    dtypes: tuple[torch.dtype, ...]  # that they compute in
    examples: int  # random ones of a test: kernels that are interpreted are slow
    public: bool  # whether the public functions reach them in these tests


def name_of(op: Any) -> str:
    return str(op.FUNCTION.__name__)


class Subject:
    """An operation (a module of bench.ops) as one backend computes it."""

    def __init__(self, op: Any, backend: Backend) -> None:
        self.op, self.backend = op, backend
        package = op.FUNCTION.__module__
        self.reference: Any = importlib.import_module(f"{package}.reference")
        self.module: Any = _registry.implementation(name_of(op), backend.name)
        # kernels of a GPU that run on the CPU run under guard
        self.slow = backend.name in ("triton", "cuda") and backend.device == "cpu"
        self.guarded = cuda_host.Guarded(self.module) if self.slow else self.module

    def make(self, *arguments: Any, **sizes: Any) -> Any:
        """Random arguments on the device of the backend."""
        return moved(self.op.make(*arguments, **sizes), self.backend.device)

    def takes(self, x: Any) -> bool:
        """Whether the backend computes in the dtypes of these arguments."""
        return all(dtype in self.backend.dtypes for dtype in self.op.computed(x))

    def run(self, x: Any, grad: Tensor | None = None) -> Results:
        """Outputs and gradients by the kernels; ``grad``: of the first output."""
        grad, module = gradient_of(self.op, x, grad), self.guarded
        if any(0 in y.shape for y in x if isinstance(y, Tensor)):
            module = _OrElse(module, self.reference)
        return results_of(self.op, module, x, grad)

    def gradient(self, x: Any) -> Tensor:
        """A random gradient of the first output."""
        grad = gradient_of(self.op, x)
        assert grad is not None
        return grad

    def public(self, x: Any, grad: Tensor | None = None) -> Results:
        """The same by the public function and autograd, which rounds to the dtypes of inputs."""
        return differentiated(self.op, self.op.FUNCTION, x, gradient_of(self.op, x, grad))

    def check(self, x: Any, grad: Tensor | None = None) -> Results:
        """Compares all results with the formula in float64: see budget.py.

        Also those of the public function, where this backend is behind it. What the backend does
        not take it has to leave; returned is then what the reference finds.
        """
        op, grad = self.op, gradient_of(self.op, x, grad)
        if not self.takes(x):
            self.assert_left(x, grad)
            return results_of(op, self.reference, x, grad)
        exact, rivals = self._expected(x, grad)
        # the reference has no other to compare with that takes its rounded outputs
        room = {"terms": op.terms(x, grad), "rounded": self.backend.name == "reference"}
        actual, expected = self.run(x, grad), op.dtypes(x)
        assert all(value.dtype == expected[name] for name, value in actual.items())
        assert_as_exact(actual, exact, rivals, **room)
        if self.backend.public:
            public = self.public(x, grad)
            expected |= {name: getattr(x, name).dtype for name in there(op, x)}
            assert all(value.dtype == expected[name] for name, value in public.items())
            assert_as_exact(public, exact, rivals, **room)
        return actual

    def _expected(self, x: Any, grad: Tensor | None) -> tuple[Results, list[Results]]:
        """All results in float64, and those of PyTorch in the dtypes of the arguments."""
        op, double = self.op, moved((x, grad), dtype=torch.float64)
        exact = differentiated(op, op.formula, *double)
        rivals = [differentiated(op, rival, x, grad) for rival in op.RIVALS]
        if self.backend.name != "reference" or not rivals:
            rivals.append(results_of(op, self.reference, x, grad))
        return exact, rivals

    def assert_left(self, x: Any, grad: Tensor | None = None) -> None:
        """The backend takes neither direction of these arguments."""
        grad = gradient_of(self.op, x, grad)
        assert self.module.forward(*x) is None
        if self.op.GRADIENTS:
            outputs = tupled(self.reference.forward(*x))
            arguments = self.op.backward_arguments(x, outputs, grad, [True] * 4)
            assert self.module.backward(*arguments) is None

    def check_alone(self, x: Any, wanted: str) -> None:
        """Asks for one gradient: it is that of the reference, and the others are empty."""
        grad = gradient_of(self.op, x)
        actual, expected = (
            results_of(self.op, module, x, grad, [wanted])
            for module in (self.guarded, self.reference)
        )
        torch.testing.assert_close(actual, expected)
        if self.backend.public:
            alone = differentiated(self.op, self.op.FUNCTION, x, grad, [wanted])
            torch.testing.assert_close(alone[wanted], actual[wanted])

    def check_repeats(self, x: Any) -> None:
        """Runs give the same bits; where that can be chosen, with threads in three orders."""
        grad = gradient_of(self.op, x)
        if self.takes(x):
            orders = cuda_host.orders() if self.backend.name == "cuda" else range(2)
            first, *others = [self.run(x, grad) for _ in orders]
            for other in others:
                assert_equal(other, first)
        if self.backend.public:
            assert_equal(self.public(x, grad), self.public(x, grad))

    def for_any(self, **strategies: Any) -> Callable[[Callable[..., None]], None]:
        """Runs a function with random arguments, as often as the backend is fast enough for."""

        def run(function: Callable[..., None]) -> None:
            limits = settings(max_examples=self.backend.examples, deadline=None)
            limits(given(**strategies)(function))()

        return run


class _OrElse(NamedTuple):
    """A module, and another for what it leaves: of empty tensors C++ takes what it likes."""

    first: Any
    second: Any

    def forward(self, *arguments: Any) -> Any:
        result = self.first.forward(*arguments)
        return self.second.forward(*arguments) if result is None else result

    def backward(self, *arguments: Any) -> Any:
        result = self.first.backward(*arguments)
        return self.second.backward(*arguments) if result is None else result


def tupled(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def gradient_of(op: Any, x: Any, grad: Tensor | None = None) -> Tensor | None:
    """A gradient of the first output; random unless there is one already."""
    if grad is not None or not op.GRADIENTS:
        return grad
    shape = op.shape(x)
    if not shape:
        return torch.tensor(0.7, dtype=op.dtypes(x)[op.OUTPUTS[0]], device=x[0].device)
    return torch.randn(shape).to(x[0])


def results_of(
    op: Any, module: Any, x: Any, grad: Tensor | None, wanted: Sequence[str] | None = None
) -> Results:
    """Outputs of a module's forward, and gradients of its backward under the inputs' names.

    Without ``wanted``, gradients of all arguments that there are.
    """
    outputs = tupled(module.forward(*x))
    results = dict(zip(op.OUTPUTS, outputs, strict=True))
    if not op.GRADIENTS:
        return results
    needed = [name in (wanted or there(op, x)) for name in op.GRADIENTS]
    grads = tupled(module.backward(*op.backward_arguments(x, outputs, grad, needed)))
    results |= dict(zip(op.GRADIENTS, grads, strict=True))
    absent = {*op.GRADIENTS} - {*there(op, x)}
    return {name: value for name, value in results.items() if name not in absent}


def there(op: Any, x: Any) -> list[str]:
    """The arguments with a gradient that are not left out."""
    return [name for name in op.GRADIENTS if getattr(x, name) is not None]


def differentiated(
    op: Any,
    function: Callable[..., Any],
    x: Any,
    grad: Tensor | None,
    wanted: Sequence[str] | None = None,
) -> Results:
    """Outputs of a function, and gradients of the first by autograd under the inputs' names."""
    names = wanted or there(op, x)
    leaves = {name: getattr(x, name).detach().requires_grad_() for name in names}
    outputs = tupled(function(**x._replace(**leaves)._asdict()))
    results = {name: out.detach() for name, out in zip(op.OUTPUTS, outputs, strict=False)}
    if outputs[0].requires_grad and grad is not None:
        grads = torch.autograd.grad(
            outputs[0], list(leaves.values()), grad.to(outputs[0].dtype), materialize_grads=True
        )
        return results | dict(zip(leaves, grads, strict=True))
    return results | {name: torch.zeros_like(leaf).detach() for name, leaf in leaves.items()}


def assert_as_exact(
    actual: Results, exact: Results, rivals: Sequence[Results], **room: Any
) -> None:
    """Numbers keep the budget; everything else, and what is infinite, is the same."""
    results = [dict(tensors) for tensors in (actual, exact, *rivals)]
    for name, value in actual.items():
        if not value.is_floating_point():
            assert torch.equal(value, exact[name]), name
            results[0].pop(name)
            continue
        endless = exact[name].isinf()
        assert torch.equal(value.isinf(), endless), name
        for tensors in results:
            if name in tensors:
                tensors[name] = tensors[name].masked_fill(endless, 0)
    assert_within_budget(*results, **room)


def assert_equal(actual: Results, expected: Results) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name
