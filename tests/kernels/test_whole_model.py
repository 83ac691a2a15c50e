"""A whole pretraining step: the same losses and gradients from every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seamo_fast.kernels import _backends, _registry
from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.tiles import TileBatch
from tests.factories import S1, S2, make_batch, make_views
from tests.kernels.backends import forget

CONFIG = ModelConfig(
    width=96, depth=2, heads=2, image_size=64, decoder_width=64, decoder_depth=2, decoder_heads=2
)
MISSING = [(0, 0, 0), (1, 1, 0), (1, 1, 1)]


def step(model: SeaMo, batch: TileBatch) -> dict[str, Tensor]:
    model.zero_grad()
    losses = model(batch, make_views(batch, CONFIG))
    losses.total.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": losses.total.detach(), **grads}


def distances(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    return {
        name: float((found[name].double() - value).norm() / (value.norm() + 1e-12))
        for name, value in exact.items()
    }


@pytest.mark.parametrize("missing", [[], MISSING], ids=["complete", "missing groups"])
@pytest.mark.parametrize("fusion", ["tm", "cascade"])
def test_step_is_as_exact_as_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, fusion: str, missing: list[tuple[int, int, int]]
) -> None:
    reason = _backends.obstacle("cpu")
    if reason is not None:
        pytest.skip(f"the cpu kernels: {reason}")
    batch = make_batch([S2, S1], seasons=3, size=48, missing=missing)
    torch.manual_seed(0)
    model = SeaMo(ModelConfig(**{**vars(CONFIG), "fusion": fusion}), [S2, S1])
    found = {}
    try:
        for backend in ("reference", "cpu"):
            monkeypatch.setenv(_registry.VARIABLE, backend)
            forget()
            found[backend] = {name: x.clone() for name, x in step(model, batch).items()}
        exact = step(model.double(), batch)  # the kernels leave float64 to the reference
    finally:
        monkeypatch.undo()
        forget()
    assert found["cpu"].keys() == exact.keys()
    theirs, ours = (distances(found[backend], exact) for backend in ("reference", "cpu"))
    worst = max(theirs.values())
    for name, distance in ours.items():
        assert distance <= 2 * theirs[name] + 0.1 * worst + 1e-6, name
