"""The gradient of a batch does not depend on how many parts it is computed in."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.tiles import TileBatch
from seamo_fast.training import gradients
from seamo_fast.views import Views
from tests.factories import MODALITIES, Group, make_batch, make_views

CONFIG = ModelConfig(
    width=32, depth=1, heads=2, image_size=16, patch_size=4,
    decoder_width=16, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
BATCH, SEASONS = 4, 2


def step(
    model: SeaMo, batch: TileBatch, views: Views, parts: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    model.zero_grad()
    autocast = torch.autocast("cpu", enabled=False)
    losses, counts = gradients.backward(
        model,
        model.count,
        list(zip(batch.split(parts), views.split(parts), strict=True)),
        fusion=True,
        autocast=autocast,
        phase=lambda _: nullcontext(),
    )
    zero = torch.zeros(())
    return losses, counts, [zero if p.grad is None else p.grad for p in model.parameters()]


def every(modality: int, samples: range = range(BATCH)) -> list[Group]:
    return [(b, t, modality) for b in samples for t in range(SEASONS)]


@pytest.mark.parametrize(
    "missing",
    [[], every(1), every(0, range(2)), [*every(0, range(2)), *every(1, range(2, 4))]],
    ids=["none", "a modality", "of the first half", "another of each half"],
)
def test_parts_add_up_to_the_whole(missing: list[Group]) -> None:
    model = SeaMo(CONFIG, MODALITIES).double()
    batch = make_batch(MODALITIES, batch=BATCH, seasons=SEASONS, size=24, missing=missing)
    views = make_views(batch, CONFIG)
    expected = model(batch, views)
    losses, counts, whole = step(model, batch, views, 1)
    assert torch.equal(counts, model.count(batch, views))
    torch.testing.assert_close(losses, torch.stack(list(expected.by_modality.values())).detach())
    assert any(gradient.any() for gradient in whole)
    for parts in (2, 4):
        again, counted, split = step(model, batch, views, parts)
        assert torch.equal(counted, counts)
        assert again.isfinite().all()
        torch.testing.assert_close(again, losses, check_dtype=False)
        torch.testing.assert_close(split, whole)
