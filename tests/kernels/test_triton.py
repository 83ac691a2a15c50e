"""The Triton kernels behind the public functions: choice, autograd, compile, other devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.ops import MODULES
from seamo_fast import kernels
from seamo_fast.errors import ConfigError
from seamo_fast.kernels import _backends, _registry
from tests.kernels.backends import forget
from tests.kernels.budget import moved
from tests.kernels.contract import differentiated, gradient_of, name_of

pytest.importorskip("triton")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(_registry.VARIABLE, "triton")
    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("op", MODULES, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_public_functions(
    triton_device: str, asked: None, monkeypatch: pytest.MonkeyPatch, op: Any, dtype: torch.dtype
) -> None:
    x = moved(op.make(dtype), triton_device)
    grad = gradient_of(op, x)
    actual = differentiated(op, op.FUNCTION, x, grad)
    monkeypatch.setenv(_registry.VARIABLE, "reference")
    forget()
    torch.testing.assert_close(actual, differentiated(op, op.FUNCTION, x, grad))


def test_under_compile(triton_device: str, asked: None) -> None:
    def loss(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return 2 * kernels.norm_pix_loss(pred, target, weight)

    pred, target = torch.randn(2, 3, 6, device=triton_device).unbind()
    pred.requires_grad_()
    weight = torch.ones(3, device=triton_device)
    grads = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        grads += torch.autograd.grad(function(pred, target, weight), pred)
    assert torch.equal(*grads)


def test_is_chosen_where_asked_for(triton_device: str, asked: None) -> None:
    rows = kernels.explain(triton_device)
    assert [row.backend for row in rows if row.chosen] == ["triton"] * len(MODULES)


def test_auto_does_not_choose_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backends, "interpreting", lambda: True)
    assert not any(row.chosen for row in kernels.explain("cpu") if row.backend == "triton")


def test_cpu_tensors_need_the_interpreter(asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backends, "interpreting", lambda: False)
    with pytest.raises(
        ConfigError, match="SEAMO_FAST_KERNELS=triton cannot run norm_pix_loss on cpu tensors: it "
    ):
        kernels.norm_pix_loss(torch.ones(2, 4), torch.ones(2, 4), torch.ones(2))


@pytest.mark.parametrize(
    ("capability", "reason"),
    [((7, 5), "it needs compute capability 8.0, but the device has 7.5"), ((8, 0), None)],
)
def test_old_devices(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], reason: str | None
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert _backends._no_triton() == reason


def test_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backends.importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in _backends._no_triton()
