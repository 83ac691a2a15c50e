"""Which implementation of an operation runs: the only dispatch of the kernels.

An operation is one or two torch operators (forward, backward) in the namespace ``seamo``. A backend
implements it as functions ``forward`` and ``backward`` that take the arguments of the schema; they
are loaded when they are first needed. Both directions always run on one backend. A function may
return None for arguments it does not take, such as a dtype: the reference then runs. To add one:
write the functions where :func:`implement` expects them, and name the backend there.

The way through torch's dispatcher, with autograd in Python, costs more than ten microseconds. In
eager mode the C++ kernels, which check their arguments themselves and know their gradients, are
called without it; see :func:`_eager`.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad

from ..errors import ConfigError
from . import _backends, _native, _torch_private

VARIABLE = "SEAMO_FAST_KERNELS"
REFERENCE = "reference"

# the order "auto" tries: Triton tunes itself to the GPU at hand
BACKENDS = ("triton", "cuda", "cpu", REFERENCE)

_DEVICES = {"cuda": "cuda", "triton": "cuda", "cpu": "cpu"}

_NOT_BUILT = {
    "cuda": "it has no CUDA kernel",
    "triton": "it has no Triton kernel",
    "cpu": "it has no C++ kernel",
    REFERENCE: "it has no reference implementation",
}

_library = torch.library.Library("seamo", "DEF")
_packages: dict[str, str] = {}
_implemented: dict[str, tuple[str, ...]] = {}


class Choice(NamedTuple):
    """Whether a backend runs an operation, and why."""

    op: str
    backend: str
    chosen: bool
    reason: str


def implement(package: str, *backends: str) -> None:
    """Registers an operation and the backends that compute it.

    Args:
        package: full name of its folder, whose last part is its own name, ``<op>``.
        backends: of BACKENDS. "reference", "triton" and "cuda" are the modules ``reference``,
            ``triton_impl`` and ``cuda_impl`` of the folder; "cpu" is the functions ``<op>`` and
            ``<op>_backward`` that csrc/bindings/<op>.cpp exports.

    Raises:
        ValueError: a backend is unknown.
    """
    for backend in backends:
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, but got {backend!r}")
    op = package.rpartition(".")[2]
    _packages[op], _implemented[op] = package, backends


def implementation(op: str, backend: str) -> Any:
    """What computes ``op`` on a backend that can run: an object with forward and backward."""
    if backend != "cpu":
        name = backend if backend == REFERENCE else f"{backend}_impl"
        return importlib.import_module(f"{_packages[op]}.{name}")
    module = _native.load()
    backward = getattr(module, f"{op}_backward", None)
    return SimpleNamespace(forward=getattr(module, op), backward=backward)


def define(
    op: str,
    direction: str,
    schema: str,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
    *,
    check: Callable[..., None] | None = None,
) -> Callable[..., Any]:
    """Defines one torch operator of ``op`` and returns a function that runs it.

    ``direction`` names the function of the backend: "forward" or "backward". The first
    argument of ``schema`` is a tensor or a list of tensors; its device decides the backend. An
    operator without ``backward`` raises when a gradient through it is asked for.

    ``check`` takes the arguments and raises for bad ones. An operator that has it takes the
    shortcut of :func:`_eager`: its C++ function must return None for whatever ``check`` refuses,
    and bring its own gradient.
    """
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

    def run(*arguments: Any) -> Any:
        first = arguments[0]
        device = (first[0] if isinstance(first, (list, tuple)) else first).device.type
        function = _function(op, direction, device)
        if not torch.is_autocast_enabled(device):
            return _run(function, op, direction, arguments)
        # autocast would round the accumulations inside
        with torch.autocast(device, enabled=False):
            return _run(function, op, direction, arguments)

    def no_derivative(ctx: Any, *grads: Any) -> None:
        raise RuntimeError(f"seamo::{name} has no derivative")

    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"seamo::{name}", fake, lib=_library)
    torch.library.register_autograd(
        f"seamo::{name}", backward or no_derivative, setup_context=setup_context, lib=_library
    )
    overload = getattr(torch.ops.seamo, name).default
    return overload if check is None else _eager(op, overload, check)


def _run(function: Callable[..., Any], op: str, direction: str, arguments: Any) -> Any:
    result = function(*arguments)
    if result is None:
        return getattr(implementation(op, REFERENCE), direction)(*arguments)
    return result


def _eager(op: str, overload: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """A function that calls the C++ kernel if it can, else checks and takes the dispatcher."""

    def call(*arguments: Any) -> Any:
        if _torch_private.may_have_tangents():
            _refuse_tangents(op, arguments)
        function = None if _is_observed(arguments) else _native_function(op)
        result = None if function is None else function(*arguments)
        if result is not None:
            return result
        check(*arguments)
        return overload(*arguments)

    return call


def _refuse_tangents(op: str, arguments: Any) -> None:
    """Operators of torch.library drop tangents in silence."""
    lists = (x for x in arguments if isinstance(x, (list, tuple)))
    for x in (*arguments, *itertools.chain.from_iterable(lists)):
        if isinstance(x, torch.Tensor) and forward_ad.unpack_dual(x).tangent is not None:
            raise NotImplementedError(f"seamo::{op} has no forward-mode derivative")


def call_native(op: str, *arguments: Any) -> Any:
    """What the C++ function gives for an operation that is no operator of torch.

    Returns:
        None if there is none, if it does not take the arguments, or if anything but autograd has to
        see what happens: a compiler, autocast, a mode or a transform works on layers of PyTorch.
    """
    if (
        torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or _torch_private.may_have_tangents()
        or _torch_private.is_traced(arguments)
    ):
        return None
    function = _native_function(op)
    return None if function is None else function(*arguments)


def _is_observed(arguments: Any) -> bool:
    """Whether something beside autograd has to see the calls of operators."""
    return (
        torch.compiler.is_compiling()
        or _torch_private.is_profiled()
        or _torch_private.is_traced(arguments)
    )


@functools.cache
def _native_function(op: str) -> Callable[..., Any] | None:
    """The function that runs ``op`` on CPU tensors if it is one in C++."""
    try:
        backend = _select(op, "cpu")
    except ConfigError:
        return None
    return _function(op, "forward", "cpu") if backend == "cpu" else None


@functools.cache
def requested() -> str:
    """The backend asked for by the environment variable SEAMO_FAST_KERNELS; "auto" if unset."""
    value = os.environ.get(VARIABLE, "auto").strip().lower() or "auto"
    if value != "auto" and value not in BACKENDS:
        expected = ", ".join(("auto", *BACKENDS))
        raise ConfigError(f"{VARIABLE} must be one of {expected}, but got {value!r}")
    return value


@functools.cache
def _function(op: str, direction: str, device: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(implementation(op, _select(op, device)), direction)
    return function


def _select(op: str, device: str) -> str:
    wanted = requested()
    if wanted == "auto":
        return _automatic(op, device)
    obstacle = _obstacle(op, wanted, device)
    if obstacle is not None:
        raise ConfigError(
            f"{VARIABLE}={wanted} cannot run {op} on {device} tensors: {obstacle}; "
            f"set {VARIABLE} to one of {', '.join(('auto', *_runnable(op, device)))}"
        )
    return wanted


def _automatic(op: str, device: str) -> str:
    made_for = (name for name in BACKENDS if _DEVICES.get(name, device) == device)
    return next(name for name in made_for if _obstacle(op, name, device) is None)


def _runnable(op: str, device: str) -> list[str]:
    return [backend for backend in BACKENDS if _obstacle(op, backend, device) is None]


def _obstacle(op: str, backend: str, device: str) -> str | None:
    """Why ``backend`` cannot run ``op`` on tensors of ``device``; None if it can."""
    if backend not in _implemented[op]:
        return _NOT_BUILT[backend]
    needed = _DEVICES.get(backend, device)
    interpreted = backend == "triton" and device == "cpu" and _backends.interpreting()
    if needed != device and not interpreted:
        return f"it needs {needed} tensors"
    return _backends.obstacle(backend)


def explain(device: str | None = None) -> list[Choice]:
    """Says for each operation and backend whether it runs on ``device``, and why.

    Args:
        device: device type, such as "cpu"; None for "cuda" where there is one, else "cpu".

    Returns:
        One row (op, backend, chosen, reason) for each operation and backend.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = requested()
    rows = []
    for op in sorted(_packages):
        chosen = wanted if wanted != "auto" else _automatic(op, device)
        for backend in BACKENDS:
            obstacle = _obstacle(op, backend, device)
            rows.append(
                Choice(
                    op,
                    backend,
                    backend == chosen and obstacle is None,
                    obstacle or _reason(backend, chosen, wanted, device),
                )
            )
    return rows


def _reason(backend: str, chosen: str, wanted: str, device: str) -> str:
    if backend != chosen:
        return f"{VARIABLE}={wanted} prefers {chosen}"
    if wanted == "auto":
        return f"the first that runs on {device} tensors"
    return f"{VARIABLE}={wanted}"


def explain_table(device: str | None = None) -> str:
    """The rows of :func:`explain` as a table of text."""
    header = ("operation", "backend", "runs", "reason")
    rows = [
        (row.op, row.backend, "yes" if row.chosen else "no", row.reason) for row in explain(device)
    ]
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(3)]
    return "\n".join(
        "  ".join(
            (*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3])
        )
        for line in (header, *rows)
    )
