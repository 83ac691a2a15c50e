"""Units at the doors of tasks: classifiers, probes, finetuning, prediction, datasets of others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.errors import UnitError
from seamo_fast.finetune import main
from seamo_fast.modalities import MISSING_DATE, Modality, get_modality
from seamo_fast.model import PRESETS
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.tasks.datasets import OSCD, BigEarthNet, Sen1Floods11, TorchGeoDataset
from seamo_fast.tasks.datasets.eurosat import EUROSAT_MS, EuroSAT
from seamo_fast.tasks.finetuning.heads import make_head
from seamo_fast.tasks.finetuning.model import TaskModel
from tests.eurosat import CLASSES, make_eurosat, make_image, write
from tests.unit_warnings import said

MS = EUROSAT_MS.subset(("B2", "B4", "B8")).with_statistics(
    (1100.0, 1000.0, 2300.0), (300.0, 500.0, 1000.0), "test"
)


def make_model(strict: bool = False) -> TaskModel:
    torch.manual_seed(0)
    config = replace(PRESETS["tiny"], width=32, depth=1, heads=2, image_size=16, fusion="none")
    head = make_head("linear", "classes", 1, 32, 2, 1)
    backbone = SeaMoBackbone(config, [MS], strict=strict)
    return TaskModel(backbone, head, "classes", ["a", "b"], {MS.name: (MS.name, range(3))}, 1)


def images(count: int = 16, modality: Modality = MS) -> Tensor:
    assert modality.mean is not None
    assert modality.std is not None
    rng = torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(each)[:, None, None] for each in (modality.mean, modality.std))
    return (mean + std * torch.randn(count, len(mean), 16, 16, generator=rng)).clamp(min=1)


def logits(model: TaskModel, images: Tensor) -> Tensor:
    dates = torch.full((len(images), 1, 1), MISSING_DATE)
    return model({MS.name: images[:, None]}, dates, None)


def test_a_saved_model_warns(tmp_path: Path) -> None:
    make_model().save(tmp_path / "model.safetensors")
    model = TaskModel.load(tmp_path / "model.safetensors")
    with said():
        logits(model, images())
    model = TaskModel.load(tmp_path / "model.safetensors")
    with said("look normalised already"):
        logits(model, (images() - images().mean()) / images().std())
    with pytest.raises(UnitError, match=r"eurosat_ms: .* look like reflectance"):
        logits(make_model(strict=True), images() / 10000)


def run(folder: Path, output: Path, *arguments: str) -> int:
    return main(["--data", str(folder), "--output", str(output), *arguments])


def test_the_command_warns_of_the_dataset_or_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_eurosat(tmp_path / "data", "eurosat_ms", images=0)
    rng = np.random.default_rng(0)
    for name in CLASSES:
        for number in range(1, 11):
            image = rng.integers(0, 4, (64, 64, 13)).astype(np.uint16)
            write(folder / name / f"{name}_{number}", image)
    with said(r"eurosat_ms: values 0 to 3, mean 1\."):
        assert run(folder, tmp_path / "out") == 0
    assert not json.loads((tmp_path / "out" / "results.json").read_text())["config"]["strict"]
    with said():
        assert run(folder, tmp_path / "strict", "--strict", "true") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "look like reflectance" in error


def test_test_images_in_another_unit_than_the_training_images(tmp_path: Path) -> None:
    folder = make_eurosat(tmp_path / "data", "eurosat_ms")
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        for number in range(1, 11):
            part = "train" if number < 7 else "val" if number < 9 else "test"
            parts[part].append(f"{name}_{number}.jpg")
            if part == "test":
                image = make_image("eurosat_ms", label, number)
                write(folder / name / f"{name}_{number}", (image // 12).astype(np.uint16))
    for part, names in parts.items():
        (folder / f"eurosat-{part}.txt").write_text("\n".join(names))
    with said("scaled to 0 to 255"):
        assert run(folder, tmp_path / "out") == 0


class Fake:
    """A dataset in the way of TorchGeo."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"image": self.image, "label": 0}


def test_a_dataset_of_others_meets_the_backbone() -> None:
    for factor, expected in ((1, []), (0.0001, ["look like reflectance"])):
        dataset = TorchGeoDataset(Fake(images(1)[0] * factor), {"image": MS}, ["Forest"])
        with said(*expected):
            logits(make_model(), dataset.read(0).image[None])


def look_at(dataset: Any, published: dict[str, Modality]) -> int:
    """Looks at every item as the published modality; any doubt is an error."""
    looked = 0
    for number in range(len(dataset)):
        item = dataset.read(number)
        for name, grids in item.bands.items():
            for tiles, grid in zip(grids, published[name].grids, strict=True):
                names = [published[name].band_names[channel] for channel in grid.bands]
                valid = torch.tensor(item.valid[name])[None]
                UnitCheck(strict=True)(published[name].subset(names), tiles[None], valid)
                looked += 1
    return looked


def like(name: str, modality: Modality) -> Modality:
    """A registered modality on the grids of a dataset's."""
    return replace(get_modality(name).subset(modality.band_names), bands=modality.bands)


@pytest.mark.parametrize(
    ("kind", "folder"),
    [(BigEarthNet, "bigearthnet_v1"), (Sen1Floods11, "sen1floods11"), (OSCD, "oscd")],
)
def test_real_labelled_tiles_are_right(kind: Any, folder: str, data_dir: Path) -> None:
    if not (data_dir / folder).is_dir():
        pytest.skip(f"real tiles: no folder {data_dir / folder}")
    dataset = kind(data_dir / folder)
    assert look_at(dataset, {m.name: like(m.name, m) for m in dataset.modalities})


@pytest.mark.parametrize("kind", ["eurosat_ms", "eurosat_rgb"])
def test_real_eurosat_is_right(kind: str, data_dir: Path) -> None:
    if not (data_dir / kind).is_dir():
        pytest.skip(f"real tiles: no folder {data_dir / kind}")
    dataset = EuroSAT(data_dir / kind)
    read = range(0, len(dataset), max(1, len(dataset) // 200))
    images = torch.stack([dataset.read(number).image for number in read])
    statistics = BandStatistics(len(dataset.modality.bands))
    statistics.add(dataset.modality, [images.numpy()], np.ones(len(images), bool))
    described = [statistics.apply(dataset.modality, "test")]
    UnitCheck(strict=True)(dataset.modality, images[:, None])
    if kind == "eurosat_ms":
        described.append(get_modality("s2l1c").on_one_grid(10).subset(dataset.modality.band_names))
    for modality in described:
        for image in images:  # sea, forest, and towns, each alone
            UnitCheck(strict=True)(modality, image[None, None])
