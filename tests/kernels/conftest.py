"""Fixtures of the kernel tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from seamo_fast.kernels import _backends, _native, _registry
from tests.kernels.backends import forget


def _poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        tensor = allocate(*args, **kwargs)
        if type(tensor) is Tensor and tensor.dtype.is_floating_point:
            tensor.data.fill_(torch.nan)
        return tensor

    return poisoned


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is a GPU, Triton and CUDA kernels run on it."""
    on_gpu = {"triton_device", "cuda_device"}
    for item in items:
        if torch.cuda.is_available() and on_gpu & set(getattr(item, "fixturenames", ())):
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
    from seamo_fast.kernels import _triton

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


@pytest.fixture(scope="module", params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the tests of a module once for each backend that takes CPU tensors."""
    reason = _backends.obstacle(request.param)
    if reason is not None:
        pytest.skip(f"the {request.param} kernels: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_registry.VARIABLE, request.param)
        forget()
        yield request.param
    forget()


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
