"""`python -m seamo_fast.evaluate` from files to tables, for every kind of label."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from seamo_fast.errors import DataError
from seamo_fast.evaluate import main
from seamo_fast.files import cache_folder
from seamo_fast.modalities import get_modality
from seamo_fast.model import SeaMo
from seamo_fast.model.weights import model_metadata, read_weights
from seamo_fast.tasks.datasets.open import Opened, open_dataset
from seamo_fast.tasks.evaluation import examples, fit, judge
from seamo_fast.tasks.evaluation import run as running
from seamo_fast.tasks.evaluation.config import ProbeConfig
from seamo_fast.tasks.evaluation.in_loop import RunProbe
from seamo_fast.tasks.evaluation.rows import Target, pretrained_row
from seamo_fast.tasks.features import extract as features
from seamo_fast.tasks.features.baselines import BandStatisticsFeatures, PixelPca
from seamo_fast.tasks.features.extract import Source, _draw, extract, measured_modalities
from seamo_fast.tasks.features.extractors import Extractor, Pooling
from seamo_fast.tasks.features.store import LABELS, Store, dataset_key, named
from seamo_fast.tasks.splits import Split
from tests.eurosat import make_eurosat
from tests.tasks.datasets.layouts import write_city
from tests.tasks.evaluation.toys import (
    COLOURS,
    SMALL,
    ready,
    toy,
    write_checkpoint,
    write_mask_folder,
)
from tests.tools import locked_by_another

FAST = ("--shots", "[1,2]", "--draws", "2", "--bootstrap", "100")
PROBES = ProbeConfig(shots=(2,), draws=2, bootstrap=100)


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data") / "eurosat", "eurosat_rgb", 10)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results go to ./runs, features to ./cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEAMO_FAST_CACHE", str(tmp_path / "cache"))


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return found


def test_one_command_from_images_to_a_table(
    eurosat: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert main([str(checkpoint), "--data", str(eurosat), *FAST]) == 0
    folder = Path("runs/evaluate-eurosat")
    names = ["predictions.safetensors", "results.json", "run.json", "table.md", "table.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    found = results("runs/evaluate-eurosat")
    figures = found["figures"]["accuracy"]
    assert list(figures) == ["kNN", "linear", "1-shot", "2-shot"]
    assert list(figures["linear"]) == [str(checkpoint), "random", "statistics", "pca"]
    # the colour tells the class
    assert figures["linear"]["statistics"]["value"] == 1
    assert figures["kNN"]["statistics"]["value"] == 1
    assert found["reference"] == "random"
    for column in figures.values():
        assert "difference" not in column["random"]
        for name, cell in column.items():
            assert cell["low"] <= cell["value"] <= cell["high"]
            if name != "random":
                less = cell["value"] - column["random"]["value"]
                assert cell["difference"] == pytest.approx(less)
    assert found["chosen_by_validation"]["statistics"]["kNN"] == [{"k": 1}]
    assert "statistics" in (folder / "table.md").read_text()
    assert "less random" in caplog.text


def test_results_say_which_band_took_what(eurosat: Path, tmp_path: Path) -> None:
    """Checkpoints of other sensors: Landsat's visible bands are those of the images."""
    torch.manual_seed(0)
    bands = ready(get_modality("landsat457"))
    model = SeaMo(SMALL, [bands])
    file = tmp_path / "landsat.safetensors"
    save_file(model.state_dict(), file, model_metadata(model.config, model.modalities))
    assert main([str(file), "--data", str(eurosat), "--baselines", "[random]", *FAST]) == 0
    expected = {"B4": "B3", "B3": "B2", "B2": "B1"}
    assert results("runs/evaluate-eurosat")["bands"] == {
        str(file): {"eurosat_rgb": {"modality": "landsat457", "bands": expected}}
    }
    assert results("runs/evaluate-eurosat")["config"]["unknown_bands"] == "nearest"


def test_unknown_bands_may_be_left_out(
    eurosat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = SeaMo(SMALL, [ready(get_modality("landsat457"))])
    file = tmp_path / "landsat.safetensors"
    save_file(model.state_dict(), file, model_metadata(model.config, model.modalities))
    command = [str(file), "--data", str(eurosat), "--unknown_bands"]
    assert main([*command, "leave_out"]) == 2
    assert "unknown_bands nearest takes those of the nearest wavelength" in capsys.readouterr().err
    assert main([*command, "zero"]) == 2
    assert "unknown_bands" in capsys.readouterr().err


def test_accuracy_is_that_of_the_stored_predictions(eurosat: Path, checkpoint: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    assert main([str(checkpoint), "--data", str(eurosat), *FAST]) == 0
    stored = load_file("runs/evaluate-eurosat/predictions.safetensors")
    truth = stored.pop("truth")
    figures = results("runs/evaluate-eurosat")["figures"]["accuracy"]
    for name, draws in stored.items():
        column, row = name.split("/", 1)
        scores = [metrics.accuracy_score(truth, predicted) for predicted in draws]
        assert figures[column][row]["value"] == pytest.approx(sum(scores) / len(scores))


def source_of(opened: Opened, folder: Path) -> Source:
    return Source(opened, Store(folder / "features", dataset_key(opened)))


def toy_rows(source: Source) -> dict[str, Extractor]:
    modalities = measured_modalities(source)
    task = source.opened.dataset.task
    return {
        "statistics": BandStatisticsFeatures(modalities, task, 8),
        "pca": PixelPca(modalities, task, 8, 16),
    }


def test_flags_of_several_modalities_and_seasons(tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    source = source_of(toy(tmp_path / "toy", "multilabel", items=48), tmp_path)
    found, judged = running.evaluate_rows(source, toy_rows(source), PROBES)
    figures = found["figures"]
    assert list(figures) == ["mAP_micro", "mAP_macro"]
    assert figures["mAP_macro"]["linear"]["statistics"]["value"] == pytest.approx(1)
    for column, rows in judged.predictions.items():
        for row, draws in rows.items():
            for metric, average in (("mAP_micro", "micro"), ("mAP_macro", "macro")):
                each = [
                    metrics.average_precision_score(judged.truth, scores, average=average)
                    for scores in draws
                ]
                assert figures[metric][column][row]["value"] == pytest.approx(sum(each) / len(each))


def ordered(root: Path, items: int = 48) -> Opened:
    """Places of two seasons without dates; their class says which one is bright."""
    opened = toy(root, "classes", items)
    for number, item in enumerate(opened.dataset.dataset):  # type: ignore[attr-defined]
        image = np.random.default_rng(number).normal(2000, 200, (2, 2, 16, 16))
        image[number % 2] += 2000
        item["optical"] = image.astype(np.float32)
    return opened


@pytest.mark.parametrize("pooling", ["seasons", "mean"])
def test_what_the_order_of_seasons_says_is_kept(
    pooling: Pooling, checkpoint: Path, tmp_path: Path
) -> None:
    source = source_of(ordered(tmp_path / "toy"), tmp_path)
    target = Target(measured_modalities(source), "classes", pooling=pooling)
    rows = {"model": pretrained_row(read_weights(checkpoint), target)}
    accuracy = running.evaluate_rows(source, rows, PROBES)[0]["figures"]["accuracy"]
    for column in ("kNN", "linear"):
        found = accuracy[column]["model"]["value"]
        assert found == 1 if pooling == "seasons" else found < 0.8


def test_the_probe_of_a_run_keeps_seasons_apart(checkpoint: Path, tmp_path: Path) -> None:
    probe = RunProbe(
        ordered(tmp_path / "toy"), tmp_path / "probe", torch.device("cpu"), torch.float32
    )
    assert probe(read_weights(checkpoint)) == {"knn": 1, "linear": 1}


def test_items_must_agree_in_seasons_that_are_kept_apart(checkpoint: Path, tmp_path: Path) -> None:
    opened = ordered(tmp_path / "toy")
    last = opened.dataset.dataset[opened.split.test[-1]]  # type: ignore[attr-defined]
    last["optical"], last["radar"] = last["optical"][:1], last["radar"][:1]
    source = source_of(opened, tmp_path)
    target = Target(measured_modalities(source), "classes")
    message = (
        f"items of {opened.root} have 1 or 2 seasons, but features that keep them apart need one "
        "number; `evaluate` compares items with --pooling mean --baselines '[random]'"
    )
    for _ in range(2):  # now from the images, then from the cache
        with pytest.raises(DataError) as error:
            extract(source, [pretrained_row(read_weights(checkpoint), target)])
        assert str(error.value) == message
    mean = pretrained_row(read_weights(checkpoint), replace(target, pooling="mean"))
    running.evaluate_rows(source, {"model": mean}, PROBES)


def test_masks_are_judged_by_pixel(checkpoint: Path, tmp_path: Path) -> None:
    root = write_mask_folder(tmp_path / "masks")
    arguments = [str(checkpoint), "--data", str(root), "--classes", "[red, green]", *FAST]
    assert main(arguments) == 0
    found = results("runs/evaluate-mask_folder")
    figures = found["figures"]
    assert list(figures) == ["mIoU", "pixel_accuracy"]
    assert figures["mIoU"]["linear"]["statistics"]["value"] > 0.85
    confusion = load_file("runs/evaluate-mask_folder/predictions.safetensors")["linear/statistics"]
    assert confusion.shape == (1, 2, 2, 2)
    assert confusion.sum() == 2 * 44 * 50  # padding is not judged


def test_a_mask_value_that_is_ignored_is_never_judged(tmp_path: Path) -> None:
    source = source_of(toy(tmp_path / "toy", "mask", items=12), tmp_path)
    found, judged = running.evaluate_rows(source, toy_rows(source), PROBES)
    tests = len(source.opened.split.test)
    assert judged.outcomes["linear"]["statistics"][0].sum() == tests * (20 * 20 - 2)
    assert found["figures"]["mIoU"]["linear"]["statistics"]["value"] > 0.6


def test_change_is_the_difference_of_two_dates(checkpoint: Path, tmp_path: Path) -> None:
    for city, part in (("paris", "train"), ("rennes", "train"), ("bercy", "train")):
        write_city(tmp_path / "oscd", city, part, sides=120)
    write_city(tmp_path / "oscd", "norcia", "test", sides=120)
    assert main([str(checkpoint), "--data", str(tmp_path / "oscd"), *FAST]) == 0
    found = results("runs/evaluate-oscd")
    assert list(found["figures"])[:3] == ["F1", "precision", "recall"]
    assert found["items"] == {"train": 2, "val": 1, "test": 1}


def test_pretrained_weights_in_memory_are_a_row(eurosat: Path, checkpoint: Path) -> None:
    """What probing within a pretraining run needs: no file, one function, a dictionary."""
    source = source_of(open_dataset(eurosat), Path("elsewhere"))
    target = Target(measured_modalities(source), "classes")
    rows = {"model": pretrained_row(read_weights(checkpoint), target)}
    found, _ = running.evaluate_rows(source, rows, PROBES)
    assert found["reference"] == "model"
    assert 0 <= found["figures"]["accuracy"]["linear"]["model"]["value"] <= 1


def test_test_labels_are_read_once_after_all_probes_are_fitted(
    eurosat: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, ...]] = []
    read = Store.read

    def spy(store: Store, kind: str, part: str, chunk: int) -> dict[str, torch.Tensor]:
        if kind == LABELS:
            events.append((part, str(chunk)))
        return read(store, kind, part, chunk)

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            events.append(("fit",))
            return function(*args)

        return wrapped

    monkeypatch.setattr(Store, "read", spy)
    monkeypatch.setattr(fit, "fit_probe", noted(fit.fit_probe))
    monkeypatch.setattr(fit, "fit_knn", noted(fit.fit_knn))
    monkeypatch.setattr("seamo_fast.tasks.features.reading._CHUNK", {"classes": 4})
    assert main([str(checkpoint), "--data", str(eurosat), *FAST]) == 0
    tests = [event for event in events if event[0] == "test"]
    assert tests == [("test", "0"), ("test", "1")]  # six images in chunks of four
    assert len(set(events[: events.index(("fit",))])) == events.index(("fit",))  # once for all rows
    assert all(event == ("fit",) for event in events[events.index(("fit",)) : -len(tests)])
    assert events[-len(tests) :] == tests


def test_features_are_made_once(
    eurosat: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    call = Extractor.__call__
    monkeypatch.setattr(
        Extractor, "__call__", lambda self, inputs: made.append(len(inputs)) or call(self, inputs)
    )
    stacked = []
    read = features.read_inputs
    monkeypatch.setattr(
        features, "read_inputs", lambda tiles, each: stacked.append(len(tiles)) or read(tiles, each)
    )
    arguments = [str(checkpoint), "--data", str(eurosat), *FAST]
    assert main(arguments) == 0
    assert sum(made) == 4 * 30
    drawn = len(open_dataset(eurosat).split.train)  # for the principal components: one, then all
    assert sum(stacked) == 30 + 1 + drawn  # once for all rows
    assert main(arguments) == 0
    assert sum(made) == 4 * 30
    assert results("runs/evaluate-eurosat") == results("runs/evaluate-eurosat-2")
    assert main([*arguments, "--cache", "false"]) == 0
    assert sum(made) == 2 * 4 * 30
    assert (
        results("runs/evaluate-eurosat-3")["figures"]
        == (results("runs/evaluate-eurosat")["figures"])
    )


def test_one_command_at_a_time_uses_a_folder_or_the_features(
    eurosat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(eurosat), "--baselines", "[statistics]", *FAST]
    assert main(arguments) == 0
    (features,) = (cache_folder() / "features").iterdir()
    for folder, given in ((tmp_path / "out", ["--output", str(tmp_path / "out")]), (features, [])):
        with locked_by_another(folder) as other:
            assert main([*arguments, *given]) == 2
        assert f"{folder} is in use by process {other}; " in capsys.readouterr().err


def test_features_follow_what_was_chosen_of_demo_places() -> None:
    dataset = SimpleNamespace(entries=(), classes=("a",), modalities=())
    keys = [
        dataset_key(Opened("demo_fields", dataset, Split([], [], []), Path("demo"), choices))  # type: ignore[arg-type]
        for choices in ({}, {"seasons": [1]}, {"seasons": [1], "clouds": "many"})
    ]
    assert all(a != b for a, b in combinations(keys, 2))


def test_features_follow_the_files_the_weights_and_the_settings(
    eurosat: Path, checkpoint: Path, tmp_path: Path
) -> None:
    root = make_eurosat(tmp_path / "other", "eurosat_rgb", 5)
    before = dataset_key(open_dataset(root))
    assert dataset_key(open_dataset(root)) == before
    (root / "link").symlink_to("nothing")
    assert dataset_key(open_dataset(root)) == before
    image = next(root.rglob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"\0")
    assert dataset_key(open_dataset(root)) != before
    source = source_of(open_dataset(eurosat), tmp_path)
    modalities = measured_modalities(source)
    other = write_checkpoint(tmp_path / "weights" / "model.safetensors", seed=1)
    target = Target(modalities, "classes")
    keys = [
        pretrained_row(read_weights(checkpoint), target).key,
        pretrained_row(read_weights(other), target).key,
        pretrained_row(read_weights(checkpoint), Target(modalities, "mask")).key,
        pretrained_row(read_weights(checkpoint), Target(modalities, "classes", pooling="mean")).key,
        pretrained_row(
            read_weights(checkpoint), Target(modalities, "classes", dtype=torch.bfloat16)
        ).key,
    ]
    assert len({json.dumps(key) for key in keys}) == 5


def test_a_tenth_of_the_labels(eurosat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    fit_probe = fit.fit_probe
    monkeypatch.setattr(
        fit,
        "fit_probe",
        lambda train, val, *rest: (
            sizes.append((len(train[1]), len(val[1]))) or fit_probe(train, val, *rest)
        ),
    )
    arguments = ["--data", str(eurosat), "--baselines", "[statistics]", "--shots", "[]"]
    assert main([*arguments, "--train_fraction", "0.5", "--bootstrap", "100"]) == 0
    assert sizes == [(9, 3)]


def test_an_output_is_never_written_over(eurosat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(eurosat), "--baselines", "[statistics]", "--output", "out", *FAST]
    assert main(arguments) == 0
    before = Path("out/results.json").read_bytes()
    assert main(arguments) == 2
    assert "out has results.json already" in capsys.readouterr().err
    assert Path("out/results.json").read_bytes() == before


def test_the_seed_decides_the_draws(eurosat: Path) -> None:
    arguments = ["--data", str(eurosat), "--baselines", "[pca]", *FAST]
    assert main([*arguments, "--output", "a", "--seed", "1"]) == 0
    assert main([*arguments, "--output", "b", "--seed", "1"]) == 0
    assert Path("a/results.json").read_text().replace('"a"', '"b"') == (
        Path("b/results.json").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere is no folder"),
        (["--data", "."], "looks like no known dataset"),
        (["--data", "{data}", "--dataset", "euroast"], "dataset must be auto or one of"),
        (["--data", "{data}", "--train_fraction", "0"], "train_fraction must be in (0, 1]"),
        (["--data", "{data}", "--baselines", "[]"], "give a checkpoint, or leave a baseline"),
        (["{weights}", "{weights}", "--data", "{data}"], "is one row"),
        (["--data", "{data}", "--pooling", "max"], "pooling"),
        (["--data", "{data}", "--reference", "base"], "reference must be one of the rows"),
        (["--data", "{data}", "--modalities", "[s1grd]"], "modalities must be [eurosat_rgb]"),
        (["--data", "{data}", "--dataset", "mask_folder"], "needs the names of the classes"),
        (["nothing", "--data", "{data}"], "nothing holds no weights"),
        (["--data", "{data}", "--trian_fraction", "1"], "'trian_fraction'; the nearest known is"),
        ([], "arguments are required: data"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str],
    message: str,
    eurosat: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"data": eurosat, "weights": checkpoint}
    assert main([argument.format(**names) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_labels_outside_of_the_classes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = toy(tmp_path / "toy", "classes")
    opened.dataset.classes = ("a",)
    source = source_of(opened, tmp_path)
    with pytest.raises(DataError, match=r"has the labels \[1\]; expected 0 to 0"):
        running.evaluate_rows(source, toy_rows(source), PROBES)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    opened = toy(tmp_path / "toy", "classes")
    even = [number for number in range(30) if number % 2 == 0]
    split = opened.split._replace(train=even[:9], val=even[9:12], test=even[12:])
    source = source_of(Opened("toy", opened.dataset, split, opened.root), tmp_path)
    with pytest.raises(DataError, match=r"has labels of 1 class\(es\)"):
        running.evaluate_rows(source, toy_rows(source), PROBES)


def test_a_mask_of_another_size_is_refused() -> None:
    class Zero:
        chosen: dict[str, float] = {}  # noqa: RUF012

        def scores(self, features: torch.Tensor) -> torch.Tensor:
            return features[:, :2]

    mask = torch.zeros(17, 16, dtype=torch.int64)
    with pytest.raises(DataError, match=r"a mask is \[17, 16\]"):
        judge._confusion(Zero(), torch.zeros(4, 2, 2), mask, 8, 2)


def test_majority_of_labelled_pixels() -> None:
    mask = torch.full((3, 5), -1)
    mask[0, 0], mask[1, :2], mask[2, 4] = 2, 1, 0
    assert examples.majority(mask, 2, 3).tolist() == [[1, -1, -1], [-1, -1, 0]]


def write_pictures(root: Path, sides: tuple[int, ...], count: int = 5) -> Path:
    """Class folders of red and green pictures of these sides."""
    for name, colour in zip(("green", "red"), COLOURS[::-1], strict=True):
        for number in range(count):
            side = sides[number % len(sides)]
            noise = np.random.default_rng(number).normal(0, 10, (side, side + 3, 3))
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(imagecodecs.png_encode((colour + noise).clip(0, 255).astype(np.uint8)))
    return root


def test_images_of_any_sizes(checkpoint: Path, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pictures", (9, 32, 50))
    assert main([str(checkpoint), "--data", str(root), *FAST]) == 0
    figures = results("runs/evaluate-class_folder")["figures"]["accuracy"]
    assert figures["linear"]["statistics"]["value"] == 1
    assert list(figures["linear"]) == [str(checkpoint), "random", "statistics", "pca"]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((9, 9), np.uint8), "3.png has shape [1, 9, 9], expected [3, any, any]"),
        (np.zeros((9, 9, 4), np.uint8), "3.png has transparent pixels, no measurements"),
        (np.zeros((9, 9, 3), np.uint16), "3.png has dtype uint16, expected uint8"),
    ],
)
def test_grey_transparent_and_16_bit_images_are_named(
    picture: np.ndarray,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write_pictures(tmp_path / "pictures", (16,))
    (root / "red" / "3.png").write_bytes(imagecodecs.png_encode(picture))
    arguments = ["--data", str(root), "--baselines", "[statistics]", *FAST]
    assert main([*arguments, "--on_bad", "stop"]) == 2
    assert message in capsys.readouterr().err
    assert main(arguments) == 0
    found = results("runs/evaluate-class_folder")
    assert [message in reason for reason in found["skipped"]] == [True]


def test_a_class_of_one_image_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "pictures", (16,))
    for number in range(1, 5):
        (root / "red" / f"{number}.png").unlink()
    assert main(["--data", str(root)]) == 2
    assert "class 'red' has 1 images, which cannot be split" in capsys.readouterr().err


def test_a_folder_of_a_class_without_images_is_no_class(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pictures", (16,))
    (root / "blue").mkdir()
    assert main(["--data", str(root), "--baselines", "[statistics]", *FAST]) == 0
    assert results("runs/evaluate-class_folder")["classes"] == ["green", "red"]


def test_images_that_cannot_be_read_are_replaced_in_the_draw_for_pca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is drawn first: one item is drawn before all others."""
    for bad in range(15):
        opened = toy(tmp_path / str(bad), "classes")
        lost = set(opened.split.train) - {opened.split.train[bad]}
        read = type(opened.dataset).read

        def broken(self: Any, number: int, lost: set[int] = lost, read: Any = read) -> Any:
            if number in lost:
                raise DataError("lost")
            return read(self, number)

        with monkeypatch.context() as context:
            context.setattr(type(opened.dataset), "read", broken)
            drawn = list(_draw(source_of(opened, tmp_path / str(bad)), 3))
        (inputs,) = drawn
        assert len(inputs) == 1
    source = source_of(opened, tmp_path / "all")
    assert [sum(map(len, _draw(source, count))) for count in (1, 4, 15, 99)] == [1, 4, 15, 15]


def test_images_of_several_dtypes_have_the_same_features(tmp_path: Path) -> None:
    found = []
    for number, dtype in enumerate((np.float32, np.float64)):
        opened = toy(tmp_path / str(number), "classes")
        for item in opened.dataset.dataset[::2]:
            item["optical"] = item["optical"].astype(dtype)
        source = source_of(opened, tmp_path / str(number))
        extractor = BandStatisticsFeatures(measured_modalities(source), "classes", 8)
        assert extract(source, [extractor]) == []
        found.append(source.store.read(named(extractor.key), "train", 0))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
