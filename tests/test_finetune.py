"""`python -m seamo_fast.finetune` from files to results, in both methods, and its refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from seamo_fast.finetune import main
from seamo_fast.modalities import get_modality
from seamo_fast.model import PRESETS, SeaMo
from seamo_fast.model.weights import model_metadata
from seamo_fast.tasks import classify, full
from seamo_fast.tasks.classifier import Classifier
from seamo_fast.tasks.datasets.eurosat import EuroSAT, Kind
from seamo_fast.tasks.probes.linear import Probe
from tests.eurosat import CLASSES, make_eurosat
from tests.tools import locked_by_another

FAST = ("--epochs", "2", "--batch_size", "6")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    root = tmp_path_factory.mktemp("eurosat")
    kinds: tuple[Kind, ...] = ("eurosat_rgb", "eurosat_ms")
    return {kind: make_eurosat(root / kind, kind) for kind in kinds}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a pretraining run of Sentinel-2 L2A (without B10) and Sentinel-1."""
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    model = SeaMo(PRESETS["tiny"], [get_modality("s1grd"), get_modality("s2l2a")])
    save_file(model.state_dict(), path, model_metadata(model.config, model.modalities))
    return path


def results(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "results.json").read_text())
    return found


@pytest.mark.parametrize("method", ["linear", "full"])
@pytest.mark.parametrize("kind", ["eurosat_rgb", "eurosat_ms"])
def test_one_command_from_images_to_results(
    kind: Kind,
    method: str,
    folders: dict[Kind, Path],
    checkpoint: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    # one kind starts from random weights, the other from a checkpoint, and the other way round
    start = (
        ["--checkpoint", str(checkpoint)] if (kind == "eurosat_ms") == (method == "full") else []
    )
    arguments = ["--data", str(folders[kind]), "--method", method, "--output", str(tmp_path)]
    assert main([*arguments, *start, *FAST]) == 0
    found = results(tmp_path)
    assert found["dataset"] == kind
    assert found["images"] == {"train": 18, "val": 6, "test": 6}
    assert found["weights"] == (str(checkpoint) if start else "random")
    confusion = torch.tensor(found["confusion"])
    assert confusion.sum() == 6
    assert found["test_accuracy"] == confusion.diagonal().sum() / 6
    low, high = found["test_interval_95"]
    assert 0 <= low <= found["test_accuracy"] <= high <= 1
    assert list(found["test_accuracy_by_class"]) == list(CLASSES)
    assert f"test accuracy {found['test_accuracy']:.4f} (95 % confidence {low:.4f}" in caplog.text
    for name, value in found["test_accuracy_by_class"].items():
        assert f"  {name:<7}  {value:.3f}\n" in caplog.text
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    if method == "linear":  # the classes differ in colour, which every projection keeps
        assert found["test_accuracy"] == 1
    check_saved(tmp_path, folders[kind], found)


def check_saved(output: Path, folder: Path, found: dict[str, Any]) -> None:
    """The saved classifier gives the accuracy that was reported."""
    model = Classifier.load(output / "model.safetensors")
    dataset = EuroSAT(folder, bands=model.backbone.modalities[0].band_names)
    items = [dataset.read(number) for number in dataset.split().test]
    with torch.no_grad():
        predicted = model(torch.stack([item.image for item in items])).argmax(1)
    right = predicted == torch.stack([item.label for item in items])
    assert right.double().mean().item() == pytest.approx(found["test_accuracy"])


def test_the_head_is_the_probe(
    folders: dict[Kind, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe(torch.randn(len(CLASSES), 192), torch.randn(len(CLASSES)), 0.01, 0.5)
    monkeypatch.setattr(classify, "fit_probe", lambda *_: probe)
    assert main(["--data", str(folders["eurosat_ms"]), "--output", str(tmp_path)]) == 0
    head = Classifier.load(tmp_path / "model.safetensors").head
    assert torch.equal(head.weight, probe.weight)
    assert torch.equal(head.bias, probe.bias)
    assert (results(tmp_path)["validation_accuracy"], results(tmp_path)["penalty"]) == (0.5, 0.01)


def test_a_checkpoint_takes_the_bands_that_it_knows(
    folders: dict[Kind, Path], checkpoint: Path, tmp_path: Path
) -> None:
    data = ["--data", str(folders["eurosat_ms"]), "--output", str(tmp_path)]
    assert main([*data, "--checkpoint", str(checkpoint), "--model", "tiny"]) == 0
    assert results(tmp_path)["bands"] == [
        *("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B11", "B12", "B8A")
    ]


def test_the_seed_decides_the_result(folders: dict[Kind, Path], tmp_path: Path) -> None:
    accuracies = []
    for number, seed in enumerate(("0", "0", "1")):
        output = str(tmp_path / str(number))
        main(["--data", str(folders["eurosat_ms"]), "--output", output, "--seed", seed])
        state = Classifier.load(Path(output) / "model.safetensors").state_dict()
        accuracies.append(state["head.weight"])
    assert torch.equal(accuracies[0], accuracies[1])
    assert not torch.equal(accuracies[0], accuracies[2])


def test_a_damaged_image_is_counted_or_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = make_eurosat(tmp_path / "data", "eurosat_rgb", images=5)
    bad = data / "River" / "River_3.jpg"
    bad.write_bytes(bad.read_bytes()[:100])
    arguments = ["--data", str(data), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert [bad.name in reason for reason in results(tmp_path / "out")["skipped"]] == [True]
    assert f"skipped: {bad.name}" in caplog.text
    assert main([*arguments, "--on_bad", "stop"]) == 2
    assert f"error: {bad.name} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "{ms}", "--methud", "full"], "'methud'; the nearest known is 'method'"),
        (["--data", "{ms}", "--method", "linaer"], "linaer"),
        (["--data", "{ms}", "--epochs", "0"], "epochs must be at least 1, but got 0"),
        (["--data", "{ms}", "--label_smoothing", "1"], "label_smoothing must be in [0, 1)"),
        (["--data", "{ms}", "--device", "cuda:99"], "'cuda:99' cannot be used here"),
        (["--data", "{ms}", "--dataset", "eurosat_rgb"], "no class folders with .jpg images"),
        (["--data", "{ms}", "--checkpoint", "nowhere"], "nowhere holds no weights"),
        (["--data", "{ms}", "--checkpoint", "{weights}", "--model", "base"], "'base' has width"),
        (["--data", "{ms}/nothing"], "nothing is no folder"),
        ([], "arguments are required: data"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str],
    message: str,
    folders: dict[Kind, Path],
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"ms": folders["eurosat_ms"], "weights": checkpoint}
    assert main([argument.format(**names) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_checkpoint_without_optical_bands_is_refused(
    folders: dict[Kind, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    model = SeaMo(PRESETS["tiny"], [get_modality("s1grd")])
    save_file(model.state_dict(), path, model_metadata(model.config, model.modalities))
    assert main(["--data", str(folders["eurosat_rgb"]), "--checkpoint", str(path)]) == 2
    assert "knows none of the bands B4, B3, B2" in capsys.readouterr().err


def test_ctrl_c_ends_with_its_status(
    folders: dict[Kind, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(full, "_step", lambda *_: signal.raise_signal(signal.SIGINT))
    given = ["--data", str(folders["eurosat_rgb"]), "--method", "full", "--output", str(tmp_path)]
    assert main(given) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert not list(tmp_path.iterdir())


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "seamo_fast.finetune", "--date", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: unknown setting 'date'; the nearest known is 'data' (--help lists all)\n"
    )


def test_results_do_not_overwrite_one_another(
    folders: dict[Kind, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(folders["eurosat_rgb"])]
    for seed in ("1", "2"):
        assert main([*data, "--seed", seed]) == 0
    first, second = sorted((tmp_path / "runs").iterdir())
    assert (first.name, second.name) == (
        "eurosat_rgb-linear-random",
        "eurosat_rgb-linear-random-2",
    )
    assert [results(each)["config"]["seed"] for each in (first, second)] == [1, 2]
    assert main([*data, "--seed", "3", "--output", str(first)]) == 0
    assert results(first)["config"]["seed"] == 3
    assert results(first / "previous-1")["config"]["seed"] == 1
    assert {each.name for each in (first / "previous-1").iterdir()} == {
        *("results.json", "confusion.png", "model.safetensors")
    }
    assert f"the earlier results were moved to {first / 'previous-1'}" in caplog.text


def test_an_output_folder_has_one_run_at_a_time(
    folders: dict[Kind, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(folders["eurosat_rgb"]), "--output", str(tmp_path / "out")]
    with locked_by_another(tmp_path / "out") as process:
        assert main(arguments) == 2
        assert f"out is in use by process {process}; wait for it" in capsys.readouterr().err
    assert main(arguments) == 0


@pytest.mark.parametrize("how", ["none", "cut", "header"])
def test_a_class_without_a_readable_image_is_named(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be missing from the accuracy, which then reads as perfect."""
    data = make_eurosat(tmp_path / "data", "eurosat_rgb", images=5)
    for path in (data / "River").iterdir():
        image = path.read_bytes()
        at = image.index(b"\xff\xc0") + 5
        claimed = image[:at] + b"\xff\xdc\xff\xdc" + image[at + 4 :]
        path.write_bytes({"none": b"", "cut": image[:100], "header": claimed}[how])
    assert main(["--data", str(data), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"error: {data}: no training image of River can be read (River_" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
