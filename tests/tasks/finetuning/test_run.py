"""A finetuning from the images to the results, for every task and method."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import t as student
from sklearn import metrics

from seamo_fast.errors import ConfigError, SeaMoError
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning import run as whole
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit import run as one_run
from seamo_fast.tasks.finetuning.fit import step as steps
from seamo_fast.tasks.finetuning.fit.judge import Judged
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.finetuning.results.seeds import mean_interval
from seamo_fast.tasks.finetuning.run import finetune
from seamo_fast.tasks.finetuning.scores import CHOSEN
from seamo_fast.tasks.splits import Split
from seamo_fast.training.reporting.telemetry import read_metrics
from tests.tasks.finetuning.conftest import Settings
from tests.tasks.finetuning.data import toy

Use = Callable[[Opened], None]
PARTS = Split([0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11])


def divided(task: Task, **options: Any) -> Opened:
    """Twelve items, half of which train."""
    sizes = ((32, 32),) * 12
    found = toy(task, sizes, classes=2 if task == "change" else 3, **options)
    for item in found.dataset.dataset:  # type: ignore[attr-defined]
        item["optical"] = item["optical"].astype(np.float32)
    return replace(found, split=PARTS)


def run(config: FinetuneConfig) -> dict[str, Any]:
    found = finetune(config)
    assert isinstance(found, dict)
    assert config.output is not None
    stored = json.loads((Path(config.output) / "results.json").read_text())
    assert stored == json.loads(json.dumps(found))
    return found


@pytest.mark.parametrize(
    ("method", "head"),
    [("linear", None), ("frozen", "attention"), ("lora", None), ("full", "linear")],
)
def test_every_method_from_images_to_results(
    settings: Settings, method: Any, head: Any, tmp_path: Path, drawn: None
) -> None:
    found = run(settings(method=method, head=head))
    folder = tmp_path / "out"
    assert found["dataset"] == "eurosat"
    assert found["items"] == {"train": 18, "val": 6, "test": 6}
    kept = load_file(folder / "predictions.safetensors")
    predicted, truth = kept["logits"].argmax(1), kept["target"]
    accuracy = found["test"]["accuracy"]
    assert accuracy["value"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert found["confusion"] == metrics.confusion_matrix(truth, predicted).tolist()
    assert list(found["test_by_class"]) == ["Forest", "River", "SeaLake"]
    model = TaskModel.load(folder / "model.safetensors").eval()
    assert {type(model.head).__name__} == {"AttentionHead" if head == "attention" else "LinearHead"}
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.yaml", "confusion.png", "classes.png", "predictions.png", "run.json"}
    assert not names & {"checkpoints", "best.safetensors"}


@pytest.mark.parametrize("task", CHOSEN)
def test_every_task_from_images_to_results(
    task: Task, settings: Settings, opens: Use, tmp_path: Path, drawn: None
) -> None:
    opens(divided(task))
    config = settings(checkpoint="none", method="frozen", epochs=1, dataset="auto")
    found = run(config)
    assert found["task"] == task
    kept = load_file(tmp_path / "out" / "predictions.safetensors")
    assert kept["numbers"].tolist() == PARTS.test
    assert found["chosen_by_validation"]["epoch"] == 1
    assert f"val_{CHOSEN[task]}" in found["chosen_by_validation"]
    assert CHOSEN[task] in found["test"]
    if task in ("mask", "change"):
        assert kept["confusion"].sum() == 3 * 32 * 32  # every pixel once
    check_saved(task, tmp_path / "out", kept)


def check_saved(task: Task, folder: Path, kept: dict[str, torch.Tensor]) -> None:
    """What is saved gives what was judged."""
    from seamo_fast.tasks.features.inputs import read_inputs

    model = TaskModel.load(folder / "model.safetensors").eval()
    dataset = divided(task).dataset
    inputs = read_inputs([dataset.read(number) for number in PARTS.test], dataset.modalities)
    with torch.no_grad():
        logits = model(inputs.images, inputs.dates, inputs.valid)
    if task in ("mask", "change"):
        truth = torch.stack([dataset.read(n).mask for n in PARTS.test])  # type: ignore[misc]
        classes = range(len(dataset.classes))
        expected = metrics.confusion_matrix(
            truth.flatten(), logits.argmax(1).flatten(), labels=classes
        )
        assert kept["confusion"].sum(0).tolist() == expected.tolist()
    else:
        torch.testing.assert_close(logits, kept["logits"], rtol=1e-4, atol=1e-5)


def test_what_is_learned_is_found_again(settings: Settings, opens: Use) -> None:
    """Pixels say what they are, and a small head learns to read them."""
    opens(divided("mask", seasons=1))
    found = run(settings(method="full", epochs=1, loss="cross_entropy+lovasz", clip=1.0))
    assert found["epochs"][0]["loss"] > 0


def test_the_head_of_the_linear_method_is_the_probe_of_evaluate(
    settings: Settings, eurosat: Path, small: Path, tmp_path: Path
) -> None:
    from seamo_fast.tasks.evaluation.config import EvaluateConfig
    from seamo_fast.tasks.evaluation.run import run as evaluate

    found = run(settings(method="linear", head="linear"))
    shared = {"data": str(eurosat), "output": str(tmp_path / "evaluate"), "precision": "fp32"}
    judged = evaluate(
        EvaluateConfig(checkpoints=[str(small)], baselines=(), shots=(), cache=False, **shared)  # type: ignore[arg-type]
    )
    figures = judged["figures"]["accuracy"]["linear"][str(small)]
    assert found["test"]["accuracy"]["value"] == figures["value"]
    (chosen,) = judged["chosen_by_validation"][str(small)]["linear"]
    assert found["chosen_by_validation"]["penalty"] == chosen["penalty"]


def test_a_finetuned_model_is_a_checkpoint_of_evaluate(
    settings: Settings, eurosat: Path, tmp_path: Path
) -> None:
    from seamo_fast.evaluate import main

    run(settings(method="lora", epochs=1))
    given = ["--data", str(eurosat), "--baselines", "[]", "--shots", "[]", "--cache", "false"]
    weights = tmp_path / "out" / "model.safetensors"
    output = ["--output", str(tmp_path / "judged"), "--bootstrap", "100"]
    assert main([str(weights.parent), str(weights), *given, *output]) == 0
    (figures,) = json.loads((tmp_path / "judged/results.json").read_text())["figures"].values()
    assert figures["linear"][str(weights)]["value"] == 1


class Reads(list[Any]):
    """Items that note their numbers when they are read."""

    def __init__(self, items: list[Any], order: list[int]) -> None:
        super().__init__(items)
        self.order = order

    def __getitem__(self, number: Any) -> Any:
        self.order.append(number)
        return super().__getitem__(number)


@pytest.mark.parametrize("method", ["linear", "full"])
@pytest.mark.parametrize("task", ["classes", "mask"])
def test_test_items_are_read_once_after_everything_is_chosen(
    method: Any, task: Task, settings: Settings, opens: Use, drawn: None
) -> None:
    opened = divided(task)
    order: list[int] = []
    opened.dataset.dataset = Reads(opened.dataset.dataset, order)  # type: ignore[attr-defined]
    opens(opened)
    run(settings(checkpoint="none", method=method, epochs=1, workers=0))
    tested = [number for number in order if number in PARTS.test]
    assert sorted(tested) == PARTS.test
    first = order.index(tested[0])
    assert not set(order[:first]) & set(PARTS.test)
    assert set(order[first:]) == set(PARTS.test)


def scripted(figures: list[float], losses: list[float], patch: pytest.MonkeyPatch) -> list[Any]:
    """Lets validation find these figures, epoch by epoch; returns the weights it was asked of."""
    judge, asked = one_run.Run.judge, []

    def judge_epoch(self: one_run.Run, part: str, *given: Any) -> Judged | None:
        found = judge(self, part, *given)
        if part == "val" and found is not None:
            at = len(asked)
            asked.append({n: t.clone() for n, t in self.model.head.state_dict().items()})
            values = {**found.figures.values, "accuracy": figures[at]}
            return Judged(losses[at], found.figures._replace(values=values))
        return found

    patch.setattr(one_run.Run, "judge", judge_epoch)
    return asked


def test_the_best_epoch_is_kept_and_of_equals_the_one_with_less_loss(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scripted([0.5, 0.5, 0.5, np.nan], [3.0, 1.0, 2.0, 0.5], monkeypatch)
    found = run(settings(epochs=4))
    assert found["chosen_by_validation"]["epoch"] == 2
    assert [epoch["val_accuracy"] for epoch in found["epochs"]] == [0.5, 0.5, 0.5, None]
    head = TaskModel.load(tmp_path / "out" / "model.safetensors").head.state_dict()
    assert all(torch.equal(tensor, asked[1][name]) for name, tensor in head.items())
    assert not torch.equal(head["linear.weight"], asked[2]["linear.weight"])


def test_patience_ends_a_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted([0.1, 0.3, 0.2, 0.3, 0.9, 0.9], [1.0] * 6, monkeypatch)
    found = run(settings(epochs=6, patience=2))
    assert len(asked) == 4
    assert found["chosen_by_validation"]["epoch"] == 2
    assert [epoch["epoch"] for epoch in found["epochs"]] == [1, 2, 3, 4]


def test_seeds_give_a_mean_with_its_interval(settings: Settings, tmp_path: Path) -> None:
    config = settings(method="linear", seed=7, seeds=3, train_fraction=0.5)
    found = run(config)
    assert found["seeds"] == [7, 8, 9]
    alone = [json.loads((tmp_path / f"out/seed_{n}/results.json").read_text()) for n in range(3)]
    values = [each["test"]["accuracy"]["value"] for each in alone]
    assert found["test"]["accuracy"]["runs"] == values
    assert found["test"]["accuracy"]["value"] == pytest.approx(np.mean(values))
    single = settings(method="linear", seed=8, train_fraction=0.5, output=str(tmp_path / "one"))
    assert run(single)["test"] == alone[1]["test"]
    assert finetune(config) == json.loads((tmp_path / "out/results.json").read_text())


def test_seeds_resume_with_those_that_are_left(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, seeds = whole.fit, []

    def failing(config: FinetuneConfig, *given: Any) -> Any:
        seeds.append(config.seed)
        if len(seeds) == 2:
            raise KeyboardInterrupt
        return fit(config, *given)

    monkeypatch.setattr(whole, "fit", failing)
    config = settings(method="linear", seeds=3)
    with pytest.raises(KeyboardInterrupt):
        finetune(config)
    assert run(config)["seeds"] == [0, 1, 2]
    assert seeds == [0, 1, 1, 2]


@pytest.mark.parametrize("values", [[0.5, 0.7, 0.6], [1.0, 2.0], list(range(30))])
def test_the_interval_of_seeds_is_student_s(values: list[float]) -> None:
    spread = np.std(values, ddof=1) / len(values) ** 0.5
    expected = student.interval(0.95, len(values) - 1, np.mean(values), spread)
    assert mean_interval(values) == pytest.approx(expected, rel=1e-9)
    assert mean_interval([0.5]) == (None, None)


def test_other_settings_do_not_resume(settings: Settings, tmp_path: Path) -> None:
    run(settings(epochs=1))
    with pytest.raises(ConfigError, match=r"\(epochs: 1 there, 2 here\); give the same settings"):
        finetune(settings(epochs=2))
    assert finetune(settings(epochs=1, workers=0)) == json.loads(
        (tmp_path / "out" / "results.json").read_text()
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has results\.json of something else"):
        finetune(settings(output=str(tmp_path / "other")))


def test_a_finished_run_says_so(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found = run(settings(epochs=1))
    caplog.clear()
    assert finetune(settings(epochs=1)) == json.loads(json.dumps(found))
    assert "is finished already" in caplog.text


def test_without_a_name_each_run_gets_its_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = settings(output=None, method="linear")
    with monkeypatch.context() as patch:
        patch.setattr(whole, "write_results", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            finetune(config)
    for each in (replace(config, seed=1), config, config):
        finetune(each)
    names = ["eurosat-linear-model", "eurosat-linear-model-2", "eurosat-linear-model-3"]
    found = {
        folder.name: json.loads((folder / "results.json").read_text())["config"]["seed"]
        for folder in (tmp_path / "runs").iterdir()
    }
    # the interrupted one was resumed by the same settings alone, and a finished one is left
    assert found == dict(zip(names, [0, 1, 0], strict=True))
    damaged = tmp_path / "runs" / f"{names[0]}-4"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    finetune(config)
    assert (tmp_path / "runs" / f"{names[0]}-5" / "results.json").exists()
    with pytest.raises(ConfigError, match=r"run\.json is damaged; choose another --output"):
        finetune(settings(output=str(damaged)))


@pytest.mark.parametrize("where", ["step", "validation"])
def test_a_signal_stops_and_the_same_command_resumes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    expected = run(settings(output=str(tmp_path / "whole")))
    owner: Any = steps.Step if where == "step" else one_run.Judge
    name = "__call__" if where == "step" else "_run"
    original, calls = getattr(owner, name), []

    def terminated(*given: Any, **named: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, terminated)
        assert finetune(settings(checkpoint_every=1000)) is signal.SIGTERM
    found = run(settings())
    assert len(calls) == 2
    for each in (found, expected):
        del each["seconds"], each["config"]["output"]
    assert found == expected
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("out", "whole")]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]


def test_steps_without_a_finite_gradient_end_the_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(total: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return total.sum() * torch.nan

    monkeypatch.setattr(steps, "mean_loss", spoilt)
    message = r"2 steps in a row had no finite gradient.*lower blr, set clip, or try --precision"
    with pytest.raises(SeaMoError, match=message):
        finetune(settings(max_nonfinite=2))


def test_one_bad_step_is_skipped_and_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean, calls = steps.mean_loss, []

    def spoilt(total: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        calls.append(0)
        return mean(total, weight) * (torch.nan if len(calls) == 2 else 1)

    monkeypatch.setattr(steps, "mean_loss", spoilt)
    found = run(settings())
    assert found["skipped_steps"] == 1
    assert all(np.isfinite(epoch["loss"]) for epoch in found["epochs"])


def test_micro_batches_give_the_same_losses(settings: Settings, tmp_path: Path) -> None:
    results = []
    for parts in (1, 4):
        output = str(tmp_path / str(parts))
        run(settings(accumulate=parts, class_weights="balanced", output=output))
        results.append([line["loss"] for line in read_metrics(Path(output) / "metrics.jsonl")])
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "fpn"}, "head fpn gives no classes; expected linear or attention"),
        ({"loss": "lovasz"}, "loss lovasz compares regions of masks"),
        ({"loss": "huber"}, "loss must be one of cross_entropy"),
        ({"size": 20}, "size must be a multiple of the model's patch size"),
        ({"dataset": "oscdd"}, "dataset must be auto or one of"),
        ({"device": "cuda:99"}, "'cuda:99' cannot be used here"),
    ],
)
def test_settings_that_contradict_the_data_are_refused(
    changes: dict[str, Any], message: str, settings: Settings, tmp_path: Path
) -> None:
    for given in (changes, {**changes, "seeds": 2}):
        with pytest.raises(ConfigError, match=message):
            finetune(settings(**given))
        assert not (tmp_path / "out").exists()  # other settings may have it


def test_masks_are_not_mixed(settings: Settings, opens: Use) -> None:
    opens(divided("mask"))
    with pytest.raises(ConfigError, match="leave --mixup out"):
        finetune(settings(checkpoint="none", mixup=0.5))


def test_a_damaged_checkpoint_is_not_resumed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(settings(output=str(tmp_path / "whole")))["epochs"]
    with monkeypatch.context() as patch:
        patch.setattr(one_run.State, "take_best", lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            finetune(settings())
    first, second = sorted((tmp_path / "out" / "checkpoints").iterdir())
    os.truncate(second / "model.safetensors", 100)
    best = tmp_path / "out" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:100])  # written again by the epoch that is repeated
    assert run(settings())["epochs"] == expected
    assert first.name == "step_00000003"


def test_only_damaged_checkpoints_are_an_error(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(one_run.State, "take_best", lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            finetune(settings())
    for each in (tmp_path / "out" / "checkpoints").iterdir():
        os.truncate(each / "model.safetensors", 100)
    with pytest.raises(SeaMoError, match=r"all 2 checkpoints .* or choose another --output$"):
        finetune(settings())
