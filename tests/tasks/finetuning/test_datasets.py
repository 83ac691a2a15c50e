"""`python -m seamo_fast.finetune` on every dataset in its published layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seamo_fast.finetune import main
from seamo_fast.modalities import get_modality
from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.model.weights import model_metadata
from seamo_fast.tasks.datasets import LabelledDataset
from seamo_fast.tasks.datasets.open import DATASETS, DatasetOptions, Opened, open_dataset
from seamo_fast.tasks.datasets.reading.base import DENSE, Task
from seamo_fast.tasks.datasets.so2sat import SO2SAT_S1
from seamo_fast.tasks.features.items import Items
from seamo_fast.tasks.finetuning.batches import EvaluationBatches, by_windows
from seamo_fast.tasks.finetuning.fit import start
from seamo_fast.tasks.finetuning.fit.step import inputs_of
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.finetuning.scores import CHOSEN
from seamo_fast.tasks.splits import Split
from tests.tasks.evaluation.toys import ready
from tests.tasks.finetuning.published import PUBLISHED
from tests.tasks.finetuning.sklearn_figures import by_class, by_sklearn, confusion

CONFIG = ModelConfig(
    32, 2, 2, image_size=32, patch_size=8, decoder_width=16, decoder_depth=1, decoder_heads=1
)
# one of each reader and task is fast enough for every run of the tests
FAST = {("bigearthnet", "[s1grd]"), ("bigearthnet", None), ("segmunich", None), ("oscd", None)}
FAST |= {("eurosat", None), ("mask_folder", None)}
CASES = [
    pytest.param(case, id="-".join(map(str, case)), marks=() if case in FAST else pytest.mark.slow)
    for case in ((name, choice) for name, each in PUBLISHED.items() for choice in each.choices)
]


class Done(NamedTuple):
    """A finished command: its folder, what it opened, and which items were read, in order."""

    folder: Path
    opened: Opened
    read: list[str]
    asked: list[str]  # for their label alone

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found

    @property
    def predictions(self) -> dict[str, Tensor]:
        return load_file(self.folder / "predictions.safetensors")


def test_every_dataset_on_disk_is_written_here() -> None:
    assert list(PUBLISHED) == [name for name, reader in DATASETS.items() if reader.signs]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of two small blocks for the sensors of all datasets."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    torch.manual_seed(0)
    bare = (get_modality("rgb"), SO2SAT_S1)
    modalities = [get_modality("s1grd"), get_modality("s2l2a"), *map(ready, bare)]
    model = SeaMo(CONFIG, modalities)
    save_file(model.state_dict(), path, model_metadata(model.config, model.modalities))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that writes a dataset once."""

    @cache
    def written(name: str) -> Path:
        if name in ("so2sat", "worldcereal"):
            pytest.importorskip("h5py")
        root = tmp_path_factory.mktemp("data") / name
        root.mkdir()
        if name == "eurosat":
            root.rmdir()
        PUBLISHED[name].write(root)
        return root

    return written


def arguments(name: str, choice: str | None, root: Path, weights: Path, folder: Path) -> list[str]:
    chosen = () if choice is None else ("--modalities", choice)
    small = ("--batch_size", "4", "--method", "full", "--bootstrap", "100", "--tensorboard")
    exact = ("false", "--device", "cpu", "--precision", "fp32", "--on_bad", "stop")
    given = ("--data", str(root), "--checkpoint", str(weights), "--output", str(folder))
    return [*given, *small, *exact, *PUBLISHED[name].options, *chosen]


@pytest.fixture(scope="module", params=CASES)
def done(
    request: pytest.FixtureRequest,
    data: Callable[[str], Path],
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Done:
    """A dataset and modalities, after one epoch."""
    name, choice = request.param
    read: list[str] = []
    asked: list[str] = []
    whole, label = LabelledDataset.read, LabelledDataset.label_of

    def noted(self: LabelledDataset[Any], number: int) -> Any:
        read.append(self.entries[number].id)
        return whole(self, number)

    def noted_label(self: LabelledDataset[Any], number: int) -> Any:
        asked.append(self.entries[number].id)
        return label(self, number)

    folder = tmp_path_factory.mktemp("run") / name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelledDataset, "read", noted)
        patch.setattr(LabelledDataset, "label_of", noted_label)
        given = arguments(name, choice, data(name), weights, folder)
        assert main([*given, "--epochs", "1", "--workers", "0"]) == 0
    modalities = None if choice is None else choice.strip("[]").split(", ")
    classes = ["red", "green"] if name == "mask_folder" else None
    options = DatasetOptions(modalities=modalities, classes=classes)
    return Done(folder, open_dataset(data(name), options=options), read, asked)


def test_results_say_what_was_trained(done: Done) -> None:
    opened, found = done.opened, done.results
    assert (found["dataset"], found["task"]) == (opened.name, opened.dataset.task)
    assert list(found["bands"]) == [
        each.name for each in opened.dataset.modalities if each.name in found["bands"]
    ]
    assert found["items"] == {part: len(each) for part, each in opened.split._asdict().items()}
    assert found["skipped"] == []
    assert list(found["test_by_class"]) == list(opened.dataset.classes)


def test_published_parts_are_used_as_published(done: Done) -> None:
    published = PUBLISHED[done.opened.name].items
    entries = done.opened.dataset.entries
    tested = {entries[number].id for number in done.predictions["numbers"].tolist()}
    assert tested == {entries[number].id for number in done.opened.split.test}
    if published is not None:
        found = tuple({entries[number].id for number in part} for part in done.opened.split)
        assert found == published
    first = next(at for at, name in enumerate(done.read) if name in tested)
    assert set(done.read[:first]) == {
        entries[number].id for part in done.opened.split[:2] for number in part
    }


def test_labels_of_the_test_part_are_read_once_after_training(done: Done) -> None:
    """Plain class folders are split within each class: the folder's name is no label in a file."""
    tested = [done.opened.dataset.entries[number].id for number in done.opened.split.test]
    assert sorted(name for name in done.read if name in tested) == sorted(tested)
    assert set(done.read[-len(tested) :]) == set(tested)
    if done.opened.name not in ("eurosat", "class_folder"):
        assert not set(done.asked) & set(tested)


def test_figures_are_sklearn_s_on_the_stored_predictions(done: Done) -> None:
    task, found = done.opened.dataset.task, done.results
    kept = {name: each.numpy() for name, each in done.predictions.items()}
    values = {name: each["value"] for name, each in found["test"].items()}
    assert values == pytest.approx(by_sklearn(task, kept), abs=1e-6)
    of_classes = [each["value"] for each in found["test_by_class"].values()]
    assert of_classes == [
        None if value is None else pytest.approx(value, abs=1e-6) for value in by_class(task, kept)
    ]
    expected = confusion(task, kept)
    assert found["confusion"] == (None if expected is None else expected.tolist())


def test_the_saved_model_gives_what_was_judged(done: Done) -> None:
    opened, kept = done.opened, done.predictions
    model = TaskModel.load(done.folder / "model.safetensors").eval()
    items = Items(opened.dataset, model.seasons, "stop")
    size = int(
        dict(zip(*[iter(PUBLISHED[opened.name].options)] * 2, strict=True)).get("--size", 32)
    )
    test = opened.split.test
    batches = EvaluationBatches(items, test, opened.dataset.modalities, 8, batch_size=1)
    for row, batch in enumerate(batches):

        def run(part: Any) -> Tensor:
            ready = inputs_of(part, torch.device("cpu"))
            return model(ready.images, ready.dates, ready.valid)

        with torch.no_grad():
            if opened.dataset.task in DENSE:
                predicted = by_windows(run, batch, (size, size), 4)[0].argmax(dim=0)
                truth = batch.target[0]
                pairs = (truth * len(model.classes) + predicted)[truth >= 0]
                counts = torch.bincount(pairs, minlength=len(model.classes) ** 2)
                wrong = (counts - kept["confusion"][row].flatten()).abs().sum()
                assert wrong <= 2e-3 * truth.numel()  # ties, in batches of another size
            else:
                torch.testing.assert_close(run(batch)[0], kept["logits"][row], rtol=1e-4, atol=1e-5)


def test_pictures_are_drawn(done: Done) -> None:
    names = {"classes.png", "predictions.png"}
    if done.opened.dataset.task != "multilabel":
        names.add("confusion.png")
    assert {path.name for path in done.folder.glob("*.png")} == names
    for name in names:
        picture = imagecodecs.png_decode((done.folder / name).read_bytes())
        assert min(picture.shape[:2]) > 100
        colours = picture[..., :3].astype(int) @ (1, 256, 65536)
        assert len(np.unique(colours)) > 20


OVERFIT = {
    "multilabel": ("--epochs", "60", "--blr", "0.2"),
    "classes": ("--epochs", "60", "--blr", "0.2", "--label_smoothing", "0"),
    "mask": ("--epochs", "60", "--blr", "0.3"),
    "change": ("--epochs", "60", "--blr", "0.3"),
}
LEAST = {"classes": 0.95, "multilabel": 0.95, "mask": 0.8, "change": 0.8}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "choice"),
    [case for name, each in PUBLISHED.items() for case in [(name, c) for c in each.choices]],
)
def test_a_small_sample_is_learned_by_heart(
    name: str,
    choice: str | None,
    data: Callable[[str], Path],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What trains is tested, too; images say what their labels are."""

    def training_alone(*given: Any) -> Opened:
        opened = open_dataset(*given)
        train = opened.split.train
        return replace(opened, split=Split(train, train, train))

    monkeypatch.setattr(start, "open_dataset", training_alone)
    root = data(name)
    given = arguments(name, choice, root, weights, tmp_path / "out")
    task: Task = DATASETS[name].open(root, DatasetOptions(classes=["red", "green"])).task
    plain = ("--augment", "none", "--layer_decay", "1", "--workers", "0")
    assert main([*given, *plain, *OVERFIT[task]]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["test"][CHOSEN[task]]["value"] >= LEAST[task]
