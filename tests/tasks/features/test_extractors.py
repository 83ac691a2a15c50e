"""Features are those of the backbone itself: bands by name, dates, groups, windows, differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import MISSING_DATE, Band, Modality, get_modality
from seamo_fast.model import SeaMo
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.weights import Weights, model_metadata, read_weights
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.evaluation.rows import Target, pretrained_row
from seamo_fast.tasks.features.adapt import match_modalities
from seamo_fast.tasks.features.extractors import Pooling
from seamo_fast.tasks.features.inputs import Inputs
from tests.tasks.evaluation.toys import SMALL, ready

# reordered, and one that the model does not know
BLUE_RED = Modality(
    "mine", (Band("B4", 10, 665), Band("B10", 10, 1375), Band("B2", 10, 490)), "dn", scale=10000.0
)
RADAR = Modality("sar", (Band("VH", 10), Band("VV", 10)), "db")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    torch.manual_seed(0)
    model = SeaMo(SMALL, [get_modality("s1grd"), get_modality("s2l2a")])
    for parameter in model.parameters():  # dates and fusion start from zero
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(model.state_dict(), path, model_metadata(model.config, model.modalities))
    return read_weights(path)


def items(
    modalities: Sequence[Modality], count: int = 2, seasons: int = 2, side: int = 16
) -> Inputs:
    images = {
        m.name: torch.rand(count, seasons, len(m.bands), side, side) * 200 for m in modalities
    }
    valid = torch.ones(count, seasons, len(images), dtype=torch.bool)
    valid[0, -1, -1] = len(images) == 1
    dates = torch.randint(17000, 18000, valid.shape, dtype=torch.int32)
    dates[-1, 0, 0] = MISSING_DATE
    return Inputs(images, valid, dates)


def direct(weights: Weights, inputs: Inputs, output: str, seasons: slice = slice(None)) -> Tensor:
    """What a user would write."""
    backbone = SeaMoBackbone.from_checkpoint(weights, output=output).eval()
    optical, radar = BLUE_RED.subset(["B4", "B2"]), RADAR
    backbone.adapt("s2l2a", ready(optical)).adapt("s1grd", ready(radar))
    images = {
        "s1grd": inputs.images["sar"][:, seasons],
        "s2l2a": inputs.images["mine"][:, seasons][:, :, [0, 2]],
    }
    with torch.no_grad():
        return backbone(images, inputs.dates[:, seasons], inputs.valid[:, seasons])


MODALITIES = (ready(RADAR), ready(BLUE_RED))


def test_bands_are_found_by_name_whatever_their_order(weights: Weights) -> None:
    optical, radar = match_modalities(weights, [BLUE_RED, RADAR])
    assert (optical.known.name, optical.bands) == ("s2l2a", ("B4", "B2"))
    assert (radar.known.name, radar.bands) == ("s1grd", ("VH", "VV"))


def test_no_model_s_modality_is_taken_twice(weights: Weights) -> None:
    matches = match_modalities(weights, [BLUE_RED, BLUE_RED, RADAR])
    assert [match.known.name for match in matches] == ["s2l2a", "s1grd"]


def test_a_dataset_of_unknown_bands_is_refused(weights: Weights) -> None:
    thermal = Modality("thermal", (Band("B99", 10, 10000),), "dn")
    with pytest.raises(ConfigError, match="knows none of the bands B99 of thermal"):
        match_modalities(weights, [thermal])


def test_pooled_features_of_seasons_lie_side_by_side(weights: Weights) -> None:
    inputs = items(MODALITIES, count=3)
    inputs.valid[1, 0] = False  # the whole season
    found = pretrained_row(weights, Target(MODALITIES, "classes"))(inputs)
    expected = by_season(weights, inputs).mean(axis=2).reshape(3, 2 * SMALL.width)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found[1, : SMALL.width].count_nonzero() == 0
    undated = Inputs(inputs.images, inputs.valid, torch.full_like(inputs.dates, MISSING_DATE))
    assert not np.allclose(found, by_season(weights, undated).mean(axis=2).reshape(found.shape))


def test_the_maps_of_seasons_lie_side_by_side(weights: Weights) -> None:
    inputs = items(MODALITIES, side=24)
    inputs.valid[1, 1] = False
    found = pretrained_row(weights, Target(MODALITIES, "mask"))(inputs)
    for t, season in enumerate(np.moveaxis(by_season(weights, inputs), 1, 0)):
        expected = season.reshape(2, 3, 3, SMALL.width).transpose(0, 3, 1, 2)
        part = found[:, t * SMALL.width : (t + 1) * SMALL.width]
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


def by_season(weights: Weights, inputs: Inputs) -> np.ndarray:
    """[B, T, N, D], in float64: the mean over the groups of a season that exist."""
    tokens = direct(weights, inputs, "tokens").double().numpy()
    count = inputs.valid.sum(dim=2).clamp(min=1).numpy()[..., None, None]
    return np.asarray(tokens.sum(axis=2) / count)  # tokens of others are 0


@pytest.mark.parametrize(("task", "output"), [("classes", "pooled"), ("mask", "map")])
@pytest.mark.parametrize(("pooling", "seasons"), [("mean", 2), ("mean", 1), ("seasons", 1)])
def test_of_one_season_or_their_mean_features_are_those_of_the_backbone(
    weights: Weights, task: Task, output: str, pooling: Pooling, seasons: int
) -> None:
    inputs = items(MODALITIES, seasons=seasons)
    found = pretrained_row(weights, Target(MODALITIES, task, pooling=pooling))(inputs)
    assert torch.equal(found, direct(weights, inputs, output))


def test_a_large_image_is_cut_into_windows_of_pretraining(weights: Weights) -> None:
    inputs = items(MODALITIES, side=53)  # 56 after padding: windows of 32 at 0 and at 24
    found = pretrained_row(weights, Target(MODALITIES, "mask", pooling="mean"))(inputs)
    assert found.shape == (2, 16, 7, 7)
    last = direct(weights, inputs.padded(8).window(24, 24, 32, 32), "map")
    torch.testing.assert_close(found[:, :, 3:, 3:], last)
    first = direct(weights, inputs.window(0, 0, 32, 32), "map")
    torch.testing.assert_close(found[:, :, :3, :3], first[:, :, :3, :3])


def test_change_is_the_distance_of_two_dates_apart(weights: Weights) -> None:
    inputs = items(MODALITIES)
    found = pretrained_row(weights, Target(MODALITIES, "change"))(inputs)
    before, after = (direct(weights, inputs, "map", slice(t, t + 1)) for t in (0, 1))
    torch.testing.assert_close(found, (after - before).abs())
    with pytest.raises(DataError, match="images of two dates, but there are 3"):
        pretrained_row(weights, Target(MODALITIES, "change"))(items(MODALITIES, seasons=3))


def test_a_batch_that_is_too_large_is_cut(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = items(MODALITIES, count=5)
    row = pretrained_row(weights, Target(MODALITIES, "classes"))
    whole = row(inputs)
    monkeypatch.setattr("seamo_fast.tasks.features.extractors._TOKENS_AT_ONCE", 40)  # two items
    torch.testing.assert_close(row(inputs), whole)


def test_what_a_model_does_not_know_is_logged(
    weights: Weights, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO")
    pretrained_row(weights, Target(MODALITIES, "classes"))
    assert "mine is taken as s2l2a: B4, B2; left out: B10" in caplog.text
    assert "sar is taken as s1grd: VH, VV" in caplog.text
