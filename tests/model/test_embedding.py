"""Positions, dates, and the patch projection."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seamo_fast.modalities import MISSING_DATE, get_modality
from seamo_fast.model.embedding import DateEmbedding, PatchEmbed, day_of_year, sincos_positions


def test_day_of_year_equals_the_calendar() -> None:
    days = torch.arange(-30000, 40000, dtype=torch.int32)
    start = datetime.date(1970, 1, 1)
    expected = [(start + datetime.timedelta(int(day))).timetuple().tm_yday for day in days.tolist()]
    assert day_of_year(days).tolist() == expected
    assert day_of_year(days.long()).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32, torch.bool])
def test_dates_that_may_overflow_or_be_no_days_are_refused(dtype: torch.dtype) -> None:
    dates = torch.zeros(2, 2, dtype=dtype)
    for function in (day_of_year, DateEmbedding(8)):
        with pytest.raises(ValueError, match=f"dates must be int32 or int64, .*but got {dtype}"):
            function(dates)


def test_date_embedding_is_harmonic_and_zero_without_date() -> None:
    embed = DateEmbedding(8)
    with torch.no_grad():
        embed.weight.normal_()
    dates = torch.tensor([[0, MISSING_DATE], [17_000, 17_001]], dtype=torch.int32)
    out = embed(dates)
    assert out.shape == (2, 2, 8)
    assert torch.equal(out[0, 1], torch.zeros(8))
    angle = 2 * np.pi * (datetime.date(2016, 7, 18).timetuple().tm_yday - 1) / 365.25
    waves = torch.tensor([np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)])
    torch.testing.assert_close(out[1, 0], embed.weight @ waves.float())


def test_sincos_positions_against_the_formula() -> None:
    width, rows, columns = 16, 3, 5
    table = sincos_positions(width, rows, columns)
    for row in range(rows):
        for column in range(columns):
            expected = []
            for place in (row, column):
                omega = [10000 ** (-i / (width // 4)) for i in range(width // 4)]
                expected += [np.sin(place * o) for o in omega] + [np.cos(place * o) for o in omega]
            np.testing.assert_allclose(table[row * columns + column], expected, atol=1e-6)


def test_positions_of_another_grid_are_stretched_onto_the_trained_one() -> None:
    same = sincos_positions(32, 4, 4, trained=(4, 4))
    torch.testing.assert_close(same, sincos_positions(32, 4, 4))
    # Doubling the grid puts each pair of new rows symmetrically about an old one.
    trained, fine = sincos_positions(32, 1, 1), sincos_positions(32, 2, 1, trained=(1, 1))
    torch.testing.assert_close(fine[0, :8], -fine[1, :8])
    torch.testing.assert_close(trained[0, :8], torch.zeros(8))


@pytest.mark.parametrize("name", ["s2l2a", "s1grd"])
def test_patch_embed_equals_a_convolution_of_published_bands(name: str) -> None:
    modality = get_modality(name).on_one_grid(10)
    embed = PatchEmbed(modality, 8, 32)
    shift, scale = (torch.tensor(values) for values in modality.normalization())
    tile = torch.randn(2, 1, len(modality.bands), 24, 24) / scale[:, None, None]
    tile = tile + shift[:, None, None]
    index = torch.arange(9).expand(2, 1, 9)
    box = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4)
    patches, valid = embed.gather([tile], box, index, 24)
    assert valid.all()
    tokens = embed(patches, torch.zeros(9, 32), index, torch.zeros(2, 1, 32))
    image = (tile[:, 0] - shift[:, None, None]) * scale[:, None, None]
    expected = F.conv2d(image, embed.weight, embed.bias, stride=8).flatten(2).mT
    torch.testing.assert_close(tokens[:, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["s2l2a", "s1grd"])
@pytest.mark.parametrize(
    "fill", [np.nan, -np.inf, -3.4028234663852886e38, 9.96921e36, 1e30, -32768.0]
)
def test_pixels_that_no_value_can_have_are_missing(name: str, fill: float) -> None:
    modality = get_modality(name).on_one_grid(10)
    if abs(fill) < modality.limit:
        pytest.skip("a value of this unit")
    embed = PatchEmbed(modality, 8, 32)
    mean, std = (torch.tensor(x)[:, None, None] for x in (modality.mean, modality.std))
    tile = mean + std * torch.rand(1, 1, len(modality.bands), 24, 24)
    spoilt = tile.clone()
    spoilt[0, 0, 1, 3, 12] = fill
    index, box = torch.arange(9).expand(1, 1, 9), torch.tensor([0.0, 0, 1, 1]).expand(1, 1, 4)
    (patches, valid), (expected, _) = (embed.gather([x], box, index, 24) for x in (spoilt, tile))
    assert valid.flatten().tolist() == [i != 1 for i in range(9)]
    expected[0, 0, 1, 64 + 3 * 8 + 4] = 0
    assert torch.equal(patches, expected)
    integers = tile.round().to(torch.int16)
    integers[0, 0, 1, 3, 12] = -32768
    _, valid = embed.gather([integers], box, index, 24)
    assert valid.all() == (modality.limit > 32768)
