"""Items become tensors of whole patches on one grid; nothing that was measured is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seamo_fast.modalities import Band, Modality
from seamo_fast.tasks.features.baselines import PERCENTILES, principal_axes, summaries
from seamo_fast.tasks.features.extractors import starts
from seamo_fast.tasks.features.inputs import Inputs, on_one_grid

NATIVE = Modality(
    "native", (Band("B1", 60, 443), Band("B2", 10, 490), Band("B5", 20, 705)), "dn", nodata=0.0
)


def inputs(height: int, width: int, dtype: torch.dtype = torch.uint16) -> Inputs:
    image = torch.arange(height * width).view(1, 1, 1, height, width).to(dtype)
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    return Inputs({"x": image}, valid, torch.zeros(1, 1, 1, dtype=torch.int32))


@pytest.mark.parametrize("size", [(8, 8), (5, 8), (9, 15), (1, 1)])
def test_padding_repeats_the_last_row_and_column(size: tuple[int, int]) -> None:
    padded = inputs(*size).padded(8).images["x"][0, 0, 0].int()
    expected = np.arange(size[0] * size[1]).reshape(size)
    expected = np.pad(expected, [(0, -side % 8) for side in size], mode="edge")
    assert padded.tolist() == expected.tolist()


def test_bands_of_all_grids_come_in_published_order() -> None:
    grids = [torch.full((2, 1, 1, side, side), value) for side, value in ((6, 2), (3, 5), (1, 1))]
    image = on_one_grid(NATIVE, grids, (6, 6))
    assert image.shape == (2, 1, 3, 6, 6)
    assert image[0, 0, :, 3, 3].tolist() == pytest.approx([1, 2, 5])


def test_one_grid_of_the_size_is_taken_as_it_is() -> None:
    grid = torch.arange(32).view(1, 1, 2, 4, 4).to(torch.int16)
    modality = NATIVE.subset(["B1", "B2"]).on_one_grid(10)
    image = on_one_grid(modality, [grid], (4, 4))
    assert image.dtype == torch.int16
    assert torch.equal(image, grid)


@pytest.mark.parametrize("nodata", [0.0, None])
@pytest.mark.parametrize("absurd", [None, -3.4e38, 1e30, torch.inf])
def test_resampling_never_mixes_what_was_not_measured(
    nodata: float | None, absurd: float | None
) -> None:
    modality = replace(NATIVE.subset(["B2", "B5"]), nodata=nodata)
    lost = torch.nan if nodata is None else nodata
    lost = lost if absurd is None else absurd
    coarse = torch.full((1, 1, 1, 4, 4), 7.0)
    coarse[..., 0, 0] = lost
    image = on_one_grid(modality, [torch.ones(1, 1, 1, 8, 8), coarse], (8, 8))[0, 0, 1]
    empty = image.isnan() if nodata is None else image == nodata
    assert empty[:2, :2].all()
    assert empty.sum() == 4
    torch.testing.assert_close(image[~empty], torch.full((60,), 7.0))


@pytest.mark.parametrize(
    ("length", "side", "expected"),
    [(32, 32, [0]), (8, 32, [0]), (64, 32, [0, 32]), (72, 32, [0, 32, 40])],
)
def test_windows_cover_a_side(length: int, side: int, expected: list[int]) -> None:
    assert starts(length, side) == expected


def test_summaries_are_those_of_numpy_over_measured_values() -> None:
    values = torch.randn(5, 3, 41)
    values[0, 0, ::3] = torch.nan
    values[1, 1, 1:] = torch.nan  # one is left
    found = summaries(values).double().numpy()
    array = values.double().numpy()
    np.testing.assert_allclose(found[..., 0], np.nanmean(array, axis=-1), atol=1e-6)
    np.testing.assert_allclose(found[..., 1], np.nanstd(array, axis=-1), atol=1e-6)
    percentiles = np.moveaxis(np.nanpercentile(array, PERCENTILES, axis=-1), 0, -1)
    np.testing.assert_allclose(found[..., 2:], percentiles, atol=1e-6)
    assert summaries(torch.full((4,), torch.nan)).tolist() == [0] * 7


@pytest.mark.parametrize("shape", [(40, 9), (9, 40)])
def test_principal_axes_are_scikit_learns(shape: tuple[int, int]) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    rows = torch.randn(shape, dtype=torch.float64) * torch.linspace(1, 3, shape[1])
    mean, axes = principal_axes(rows, 5)
    theirs = decomposition.PCA(5).fit(rows.numpy())
    np.testing.assert_allclose(mean, theirs.mean_)
    np.testing.assert_allclose(abs(axes.T.numpy()), abs(theirs.components_), atol=1e-9)


def test_no_more_axes_than_rows_span() -> None:
    _, axes = principal_axes(torch.randn(4, 9), 100)
    assert axes.shape == (9, 3)
