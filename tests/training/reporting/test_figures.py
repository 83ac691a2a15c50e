from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast import pictures, views
from seamo_fast.data.loading.loader import TileLoader
from seamo_fast.modalities import Band, Modality
from seamo_fast.training import batches, model_setup
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.reporting import figures, patch_images

RADAR = Modality(
    "radar",
    (Band("VV", 10), Band("VH", 10)),
    "db",
    (-12.0, -20.0),
    (5.0, 6.0),
    composite=("VV", "VH"),
)
OPTIC = Modality(
    "optic",
    tuple(Band(name, 10) for name in "ABCD"),
    "dn",
    (1.0, 2.0, 3.0, 4.0),
    (0.5, 1.0, 2.0, 4.0),
    composite=("D", "A", "B"),
)
PATCH, SIDE = 2, 3


def patches_of(image: torch.Tensor) -> torch.Tensor:
    """Cuts [C, S, S] into [N, C*p*p]."""
    columns = torch.nn.functional.unfold(image[None], PATCH, stride=PATCH)
    return columns[0].T


def test_a_composite_is_the_stored_image() -> None:
    image = torch.randn(4, SIDE * PATCH, SIDE * PATCH)
    shown = patch_images.composite(patches_of(image), OPTIC, PATCH)
    stored = [4 * image[3] + 4, 0.5 * image[0] + 1, image[1] + 2]
    np.testing.assert_allclose(shown, torch.stack(stored, -1).numpy(), rtol=1e-5)


def test_two_radar_bands_are_shown_with_their_difference() -> None:
    image = torch.randn(2, SIDE * PATCH, SIDE * PATCH)
    shown = patch_images.composite(patches_of(image), RADAR, PATCH)
    vv, vh = 5 * image[0] - 12, 6 * image[1] - 20
    np.testing.assert_allclose(shown, torch.stack([vv, vh, vv - vh], -1).numpy(), rtol=1e-4)


def test_true_colour_has_one_stretch_and_radar_one_a_channel() -> None:
    image = np.stack([np.linspace(0, 1, 36), np.linspace(1, 2, 36), np.linspace(2, 3, 36)], -1)
    image = image.reshape(6, 6, 3)
    low, high = pictures.limits(OPTIC, [image])
    assert len(set(low)) == len(set(high)) == 1
    low, high = pictures.limits(RADAR, [image])
    np.testing.assert_allclose(np.diff(low), 1)
    for value in (7.0, np.float32(7000)):  # to which float32 cannot add 1e-6
        constant = np.full((6, 6, 3), value)
        flat = pictures.stretched(constant, *pictures.limits(OPTIC, [constant]))
        assert (flat == 0).all()


def test_the_best_prediction_restores_the_region() -> None:
    full = torch.randn(SIDE**2, 16)
    hidden = torch.tensor([1, 4, 8])
    target = full[hidden]
    normalised = (target - target.mean(-1, keepdim=True)) / (
        target.var(-1, keepdim=True) + 1e-6
    ).sqrt()
    of_bands = torch.cat(
        [
            (band - band.mean(-1, keepdim=True)) / (band.var(-1, keepdim=True) + 1e-6).sqrt()
            for band in target.chunk(4, dim=-1)
        ],
        dim=-1,
    )
    choices = ((target, False), (normalised, True), (of_bands, "bands"))
    for prediction, norm_pix in choices:
        restored = patch_images.filled(full, hidden, prediction, norm_pix, 4)
        torch.testing.assert_close(restored, full)
    flat = patch_images.filled(full, hidden, torch.zeros(3, 16), True, 4)
    torch.testing.assert_close(flat[hidden], target.mean(-1, keepdim=True).expand(-1, 16))


def test_only_visible_patches_are_shown_as_visible() -> None:
    image = torch.randn(4, SIDE * PATCH, SIDE * PATCH)
    visible, hidden = torch.tensor([0, 5]), torch.tensor([1, 2, 3])
    region, seen, predicted = patch_images.triptych(
        patches_of(image), visible, hidden, torch.zeros(3, 16), OPTIC, PATCH, True
    )
    grey = np.isclose(seen, 0.55).all(-1).reshape(SIDE, PATCH, SIDE, PATCH).all((1, 3)).flatten()
    assert grey.nonzero()[0].tolist() == [1, 2, 3, 4, 6, 7, 8]
    np.testing.assert_array_equal(seen[:PATCH, :PATCH], region[:PATCH, :PATCH])
    np.testing.assert_array_equal(predicted[:PATCH, :PATCH], region[:PATCH, :PATCH])
    assert np.isclose(predicted[-PATCH:], 0.55).all()  # neither visible nor decoded


def test_a_dashed_line_ends_each_stage_but_the_last(
    settings: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings()
    plan = batches.make_plan(config, batches.open_shards(config.data.path))
    assert (plan.ends()[0], plan.ends()[-1], len(plan.stages)) == (2, plan.total, 2)
    lines = [{"step": step, "loss/radar": 1 / step, "loss/optic": None} for step in (1, 2, 3)]
    lines.append({"step": 4, "loss/radar": None, "loss/optic": 0.5})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    figures.draw_losses(tmp_path, plan)
    (axis,) = drawn[0].axes
    assert axis.get_xlim() == (0, plan.total)
    dashed = [line.get_xdata() for line in axis.lines if line.get_linestyle() == "--"]
    assert [list(x) for x in dashed] == [[2, 2]]
    curves = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert curves["radar"] == [[1, 1], [2, 1 / 2], [3, 1 / 3]]
    assert curves["optic"] == [[4, 0.5]]
    starts = {text.get_text().strip(): text.get_position()[0] for text in axis.texts}
    assert starts == {plan.stages[0].name: 0, plan.stages[1].name: 2}


@pytest.mark.parametrize("decoded", [1.0, 0.5])
def test_rows_show_every_group_and_name_missing_ones(
    settings: Callable[..., PretrainConfig], decoded: float
) -> None:
    config = settings(views__decode_fraction=decoded)
    shards = batches.open_shards(config.data.path)
    plan = batches.make_plan(config, shards)
    model = model_setup.make_model(config, shards, plan)
    stage = plan.stages[-1]
    batch = next(
        iter(TileLoader(shards, batch_size=12, seed=0, modalities=stage.modalities, seasons=3))
    )
    rows = figures.reconstruct(config, model, batch, stage, torch.float32)
    assert len(rows) == 12 * 2
    for (label, panels), valid in zip(rows, batch.valid.transpose(1, 2).flatten(0, 1), strict=True):
        assert label.split()[1] in stage.modalities
        assert [panel is not None for panel in panels] == valid.tolist()
    shown = [panel for _, panels in rows for panel in panels if panel is not None]
    assert all(picture.shape == (16, 16, 3) for panel in shown for picture in panel)


def test_both_figures_are_drawn(
    settings: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(run__folder=str(tmp_path))
    shards = batches.open_shards(config.data.path)
    plan = batches.make_plan(config, shards)
    lines = [
        {"step": 1, "loss": 2.0, "loss/optic": 1.0, "loss/radar": 1.0},
        {"step": 2, "loss": None, "loss/optic": None, "loss/radar": None},
        {"step": 3, "loss": 1.0, "loss/optic": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = figures.Figures(config, tmp_path, shards, plan)
    seen: list[views.Views] = []
    monkeypatch.setattr(batches, "draw_views", lambda *a: seen.append(original(*a)) or seen[-1])
    model = model_setup.make_model(config, shards, plan)
    for number, stage in enumerate(plan.stages):
        drawn.write(model, stage, number, torch.float32)
    for name in (
        "loss.png",
        "reconstructions/step_00000000.png",
        "reconstructions/step_00000001.png",
    ):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert torch.equal(seen[0].boxes, seen[1].boxes), "the figures of a run must be comparable"


original = batches.draw_views
