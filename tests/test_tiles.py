"""The batch contract between loaders and models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seamo_fast.tiles import TileBatch


@pytest.fixture
def batch() -> TileBatch:
    return TileBatch(
        modalities=("s2l2a", "s1grd"),
        bands={
            "s2l2a": [torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint16)],
            "s1grd": [torch.zeros(2, 3, 2, 8, 8)],
        },
        valid=torch.ones(2, 3, 2, dtype=torch.bool),
        dates=torch.zeros(2, 3, 2, dtype=torch.int32),
        ids=torch.arange(2),
        epochs=torch.zeros(2, dtype=torch.int64),
        complete=True,
    )


def test_sizes_and_check(batch: TileBatch) -> None:
    assert (batch.batch_size, batch.seasons) == (2, 3)
    batch.check()


def test_to_moves_every_tensor(batch: TileBatch) -> None:
    moved = batch.to("meta")
    tensors = [*moved.bands["s2l2a"], *moved.bands["s1grd"], moved.valid, moved.dates, moved.ids]
    assert all(tensor.is_meta for tensor in [*tensors, moved.epochs])
    assert moved.modalities == batch.modalities
    assert moved.complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": torch.ones(2, 3, 1, dtype=torch.bool)}, r"valid must have shape \[2, 3, 2\]"),
        ({"dates": torch.zeros(2, 3, 2)}, "dates must be torch.int32, but got torch.float32"),
        ({"ids": torch.zeros(3, dtype=torch.int64)}, r"ids must have shape \[2\], but got \[3\]"),
        ({"bands": {}}, r"bands must have the keys \('s2l2a', 's1grd'\)"),
        (
            {"bands": {"s2l2a": [torch.zeros(2, 4, 8, 8)], "s1grd": []}},
            r"bands\['s2l2a'\]\[0\] must be \[B, T, Cg, Hg, Wg\], but got \[2, 4, 8, 8\]",
        ),
        (
            {"bands": {"s2l2a": [torch.zeros(2, 3, 4, 8, 8, dtype=torch.int64)], "s1grd": []}},
            r"bands\['s2l2a'\]\[0\] must be torch.uint8 or .* but got torch.int64",
        ),
    ],
)
def test_check_names_what_is_wrong(
    batch: TileBatch, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(batch, **change).check()  # type: ignore[arg-type]
