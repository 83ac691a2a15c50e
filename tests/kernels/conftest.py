"""Fixtures of the kernel tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from seamo_fast.kernels import _backends, _native, _registry
from seamo_fast.kernels._gpu import _cuda
from tests.cuda_on_host import host
from tests.kernels import cuda_host
from tests.kernels.backends import forget
from tests.kernels.contract import EVERY_DTYPE, Backend, Subject, name_of


def _poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        tensor = allocate(*args, **kwargs)
        if type(tensor) is Tensor and tensor.dtype.is_floating_point:
            tensor.data.fill_(torch.nan)
        return tensor

    return poisoned


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is a GPU, Triton and CUDA kernels run on it."""
    for item in items:
        used = {*getattr(item, "fixturenames", ())} & {"triton_device", "cuda_device"}
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        used |= {parameters.get("backend")} & {"triton", "cuda"}
        if used and torch.cuda.is_available():
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def triton_device() -> Iterator[str]:
    """Where Triton kernels run: on the GPU, or on the CPU in the interpreter."""
    triton = pytest.importorskip("triton")
    if not triton.knobs.runtime.interpret:
        if not torch.cuda.is_available():
            pytest.skip("Triton kernels: no GPU, and triton was imported without TRITON_INTERPRET")
        yield "cuda"
        return
    from triton.runtime import interpreter

    prepared = set()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        # the interpreter prepares a function anew for each call: most of the time of a test
        if function.fn not in prepared:
            prepared.add(function.fn)
            interpreter._patch_lang(function.fn)
        return function.rewrite()(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        yield "cpu"


@pytest.fixture
def configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, int], None]]:
    """Makes the kernels of a cached function run one of their configurations."""
    from seamo_fast.kernels._gpu import _triton

    tuned = _triton.tuned
    used = set()

    def choose(function: Any, number: int) -> None:
        used.add(function)
        function.cache_clear()
        monkeypatch.setattr(
            _triton, "tuned", lambda kernel, configs, key: tuned(kernel, [configs[number]], key)
        )

    yield choose
    for function in used:
        function.cache_clear()


@pytest.fixture(scope="module")
def poisoned() -> Iterator[None]:
    """New memory holds NaN: a value that a kernel does not write shows."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (torch, "empty"),
            (torch, "empty_like"),
            (torch, "empty_strided"),
            (Tensor, "new_empty"),
        ):
            patch.setattr(owner, name, _poisoning(getattr(owner, name)))
        yield


@pytest.fixture(scope="module")
def cuda_device() -> Iterator[str]:
    """Where CUDA kernels run: on the GPU, or on the CPU in the executor."""
    if torch.cuda.is_available():
        reason = _cuda.load()
        if isinstance(reason, str):
            pytest.skip(f"CUDA kernels: {reason}")
        yield "cuda"
        return
    reason = host.why_not()
    if reason is not None:
        pytest.skip(reason)
    with cuda_host.on_host():
        yield "cpu"


@contextmanager
def _asked_for(name: str) -> Iterator[None]:
    """Has the public functions run on a backend."""
    reason = _backends.obstacle(name)
    if reason is not None:
        pytest.skip(f"the {name} kernels: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_registry.VARIABLE, name)
        forget()
        yield
    forget()


HALF_AND_FLOAT = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def reference() -> Iterator[Backend]:
    with _asked_for("reference"):
        yield Backend("reference", "cpu", (*HALF_AND_FLOAT, torch.float64), 40, True)


@pytest.fixture(scope="module")
def cpu() -> Iterator[Backend]:
    with _asked_for("cpu"):
        # what C++ allocates holds NaN: a value that a kernel does not write shows
        torch.use_deterministic_algorithms(True)
        yield Backend("cpu", "cpu", (torch.float32, torch.bfloat16), 60, True)
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def triton(triton_device: str) -> Iterator[Backend]:
    return Backend("triton", triton_device, HALF_AND_FLOAT, 12, False)


@pytest.fixture(scope="module")
def cuda(cuda_device: str) -> Iterator[Backend]:
    return Backend("cuda", cuda_device, HALF_AND_FLOAT, 12, False)


@pytest.fixture(scope="module", params=["reference", "cpu", "triton", "cuda"])
def backend(request: pytest.FixtureRequest, poisoned: None) -> Backend:
    """Runs the tests of a module once for each backend."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["reference", "cpu"])
def public(request: pytest.FixtureRequest, poisoned: None) -> Backend:
    """Puts each backend that takes CPU tensors behind the public functions."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def subject(request: pytest.FixtureRequest, backend: Backend) -> Subject:
    """The operation that a module tests, its ``OP``, as each backend computes it."""
    op = request.module.OP
    if backend.name not in _registry._implemented[name_of(op)]:
        pytest.skip(f"it has no {backend.name} kernel")
    return Subject(op, backend)


@pytest.fixture(params=EVERY_DTYPE, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


INSTRUCTION_SETS = ("generic", "avx2", "avx512")


@pytest.fixture(params=range(len(INSTRUCTION_SETS)), ids=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """Has the C++ kernels run on each instruction set of this processor."""
    module: Any = _native.load()
    module.limit_isa(request.param)
    if module.isa() != request.param:
        pytest.skip(f"this processor has no {INSTRUCTION_SETS[request.param]}")
    yield
    module.limit_isa(len(INSTRUCTION_SETS))


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """What C++ allocates holds NaN: a value that a kernel does not write shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
