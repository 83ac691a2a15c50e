"""Which backend runs, what is said about the others, and errors that say how to mend them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

import bench.ops
from seamo_fast import kernels
from seamo_fast.errors import ConfigError
from seamo_fast.kernels import _backends, _native, _registry
from tests.kernels.backends import forget

OPS = sorted([*bench.ops.OPS, "residual_attention", "residual_mlp"])


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], None]]:
    """Sets SEAMO_FAST_KERNELS (None: unset) as if the process had just begun."""

    def set_variable(value: str | None) -> None:
        if value is None:
            monkeypatch.delenv(_registry.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(_registry.VARIABLE, value)
        forget()

    set_variable(None)
    yield set_variable
    forget()


def loss() -> Tensor:
    return kernels.norm_pix_loss(torch.ones(2, 4), torch.zeros(2, 4), torch.ones(2))


def test_public_names() -> None:
    names = {name for name, value in vars(kernels).items() if callable(value)}
    assert names == {*OPS, "explain", "explain_table", "has_numbers", "replaceable"}


def chosen() -> dict[str, str]:
    return {row.op: row.backend for row in kernels.explain("cpu") if row.chosen}


@pytest.mark.parametrize("value", ["reference", " Reference "])
def test_reference_runs(ask: Callable[[str | None], None], value: str) -> None:
    ask(value)
    assert loss().item() == 1
    assert chosen() == dict.fromkeys(OPS, "reference")


@pytest.fixture(params=[True, False], ids=["compiled", "not compiled"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the native kernels are there, whatever this machine has."""
    reason = None if request.param else "it is not compiled: run python -m seamo_fast.build"
    monkeypatch.setattr(_backends, "obstacle", {"cpu": reason}.get)
    return bool(request.param)


@pytest.mark.parametrize("value", [None, "auto", ""])
def test_auto_takes_what_is_compiled(
    ask: Callable[[str | None], None], compiled: bool, value: str | None
) -> None:
    ask(value)
    assert chosen() == dict.fromkeys(OPS, "cpu" if compiled else "reference")


def test_backend_that_is_not_compiled(ask: Callable[[str | None], None], compiled: bool) -> None:
    ask("cpu")
    if compiled:
        assert chosen() == dict.fromkeys(OPS, "cpu")
        return
    with pytest.raises(
        ConfigError,
        match=r"SEAMO_FAST_KERNELS=cpu cannot run norm_pix_loss on cpu tensors: it is not "
        r"compiled: run python -m .*build; set SEAMO_FAST_KERNELS to one of auto, .*reference",
    ):
        loss()
    assert chosen() == {}


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_backend_of_another_device(
    ask: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(_backends, "interpreting", lambda: False)
    ask(backend)
    with pytest.raises(
        ConfigError, match=f"SEAMO_FAST_KERNELS={backend} cannot run norm_pix_loss on cpu tensors: "
    ):
        loss()
    assert chosen() == {}


def test_unknown_backend(ask: Callable[[str | None], None]) -> None:
    ask("opencl")
    with pytest.raises(
        ConfigError,
        match="SEAMO_FAST_KERNELS must be one of auto, triton, cuda, cpu, reference, "
        "but got 'opencl'",
    ):
        loss()


def test_explain_has_a_reason_for_every_backend(ask: Callable[[str | None], None]) -> None:
    rows = kernels.explain("cpu")
    assert [(row.op, row.backend) for row in rows] == [
        (op, backend) for op in OPS for backend in ("triton", "cuda", "cpu", "reference")
    ]
    assert all(row.reason for row in rows)
    ask("reference")
    chosen = [row.reason for row in kernels.explain("cpu") if row.chosen]
    assert chosen == ["SEAMO_FAST_KERNELS=reference"] * len(OPS)


def test_explain_table_has_a_line_for_each_row() -> None:
    lines = kernels.explain_table("cpu").splitlines()
    assert lines[0].split() == ["operation", "backend", "runs", "reason"]
    for line, row in zip(lines[1:], kernels.explain("cpu"), strict=True):
        assert line.split()[:3] == [row.op, row.backend, "yes" if row.chosen else "no"]
        assert line.endswith(row.reason)


class TestAnotherBackend:
    """What happens once a faster implementation is registered."""

    @pytest.fixture(autouse=True)
    def implemented(self, ask: None, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("fast")
        module.norm_pix_loss = lambda *inputs: (torch.tensor(5.0), torch.tensor(1.0))
        monkeypatch.setattr(_native, "load", lambda: module)
        monkeypatch.setattr(_backends, "obstacle", {}.get)
        monkeypatch.setattr(_backends, "interpreting", lambda: False)

    def test_auto_prefers_it(self) -> None:
        assert loss().item() == 5
        reasons = {
            row.backend: row.reason for row in kernels.explain("cpu") if row.op == "norm_pix_loss"
        }
        assert reasons["cpu"] == "the first that runs on cpu tensors"
        assert reasons["reference"] == "SEAMO_FAST_KERNELS=auto prefers cpu"
        assert reasons["cuda"] == "it needs cuda tensors"

    def test_reference_can_be_asked_for(self, ask: Callable[[str | None], None]) -> None:
        ask("reference")
        assert loss().item() == 1

    def test_device_that_it_cannot_use(self, ask: Callable[[str | None], None]) -> None:
        ask("cuda")
        with pytest.raises(
            ConfigError, match=r"it needs cuda tensors; .* one of auto, cpu, reference"
        ):
            loss()


def test_implement_refuses_an_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"backend must be one of .*, but got 'opencl'"):
        _registry.implement("somewhere.norm_pix_loss", "opencl")


def test_variable_is_read_at_first_use() -> None:
    """Importing with an impossible setting works; only using a kernel does not."""
    program = (
        "import torch, seamo_fast.kernels as k\n"
        "k.norm_pix_loss(torch.ones(2, 4), torch.ones(2, 4), torch.ones(2))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SEAMO_FAST_KERNELS": "cuda"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "norm_pix_loss on cpu tensors" in run.stderr
