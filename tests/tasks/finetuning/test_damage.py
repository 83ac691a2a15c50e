"""Damaged files in the folder of a run: refused with one line, or without any effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from seamo_fast import checkpoint_files
from seamo_fast.checkpoint_files import record_digest
from seamo_fast.errors import CheckpointError, ConfigError, DataError
from seamo_fast.tasks.finetuning import run as whole
from seamo_fast.tasks.finetuning.fit.state import State
from seamo_fast.tasks.finetuning.run import finetune
from seamo_fast.tasks.finetuning.survey import Survey, take_survey
from seamo_fast.training.recovery import checkpoint, run_folder
from tests.tasks.finetuning.conftest import Settings
from tests.tasks.finetuning.data import toy

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def stopped(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was interrupted after its two epochs of three steps."""

    def interrupt(_: State) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "take_best", interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune(settings())
    return tmp_path / "out"


def edit(path: Path, change: Change) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: edit(p, lambda it: it["modalities"][0]["mean"].reverse()), "SHA-256 differs"),
        (lambda p: edit(p, lambda it: it.pop("sha256")), "SHA-256 differs"),
        (lambda p: p.write_text("[1]"), "SHA-256 differs"),
        (lambda p: p.write_text(p.read_text()[:100]), "Unterminated|Expecting"),
        (lambda p: p.write_bytes(b"\xff"), "can't decode"),
        (lambda p: p.write_text("[" * 10**5), "nested too deep"),
    ],
    ids=["value", "no digest", "list", "cut", "bytes", "deep"],
)
def test_a_damaged_survey_is_refused(
    stopped: Path, settings: Settings, damage: Callable[[Path], Any], reason: str
) -> None:
    damage(stopped / "survey.json")
    message = rf"survey\.json is damaged \(.*({reason}).*\); restore it, or choose another --output"
    with pytest.raises(DataError, match=message):
        finetune(settings())


def test_a_survey_that_was_signed_again_says_what_a_survey_says(tmp_path: Path) -> None:
    path = tmp_path / "survey.json"
    take_survey(toy()).save(path)
    tree = json.loads(path.read_text())
    tree["sizes"], tree["sha256"] = [[1]], None
    del tree["sha256"]
    path.write_text(json.dumps({**tree, "sha256": record_digest(tree)}))
    with pytest.raises(DataError, match="not enough values to unpack"):
        Survey.load(path)


def test_best_weights_that_were_altered_are_not_used(stopped: Path, settings: Settings) -> None:
    path = stopped / "best.safetensors"
    state = load_file(path)
    state["head.linear.bias"][0] += 1
    save_file(state, path)
    message = r"best\.safetensors has been altered; restore it, or choose another --output"
    with pytest.raises(CheckpointError, match=message):
        finetune(settings())
    path.unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors cannot be read: No such file"):
        finetune(settings())


def forge(folder: Path, change: Change) -> None:
    """Changes what the newest checkpoint says of its run, and signs it again."""
    path = max((folder / "checkpoints").glob("step_*")) / "checkpoint.json"
    tree = json.loads(path.read_text())
    del tree["sha256"]
    change(tree)
    path.write_text(json.dumps({**tree, "sha256": record_digest(tree)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it.pop("best"), "does not say best"),
        (lambda it: it.update(precision="fp8"), "has precision 'fp8'"),
        (lambda it: it["epochs"].insert(0, 7), "has 7 as epoch 1"),
        (lambda it: it["epochs"][1].update(epoch=1), r"has \{'epoch': 1,.*\} as epoch 2"),
        (lambda it: it["epochs"][0].update(merit=["a", 1]), r"has \{.* as epoch 1"),
        (lambda it: it["epochs"][0].update(merit=[1]), r"has \{.* as epoch 1"),
        (lambda it: it["epochs"].pop(), None),  # as if it was saved before validation
        (lambda it: it["epochs"].clear(), "step 6 has 0 epochs of 3 steps; take an earlier one"),
        (lambda it: it["epochs"].append({**it["epochs"][0], "epoch": 3}), "6 has 3 epochs of 3"),
        (lambda it: it["sums"].pop("weight"), "has sums {'total'"),
        (lambda it: it["sums"].update(total=[1, 2]), "has sums {'total'"),
        (lambda it: it["sums"].update(total=[1, 2], weight=[1, 2]), "this run's loss has 1 terms"),
        (lambda it: it["sums"].update(total=[10**400]), "has sums"),
    ],
)
def test_records_of_strangers(
    stopped: Path, settings: Settings, change: Change, message: str | None
) -> None:
    forge(stopped, change)
    if message is None:
        assert len(finetune(settings())["epochs"]) == 2  # type: ignore[index]
        return
    with pytest.raises(CheckpointError, match=message):
        finetune(settings())


DAMAGED = {
    "text": lambda p: p.write_text("{"),
    "list": lambda p: p.write_text("[]"),
    "none": lambda p: edit(p, lambda it: it.pop("test")),
    "figure": lambda p: edit(p, lambda it: it["test"].update(accuracy=0.5)),
    "text as value": lambda p: edit(p, lambda it: it["test"]["accuracy"].update(value="x")),
    "versions": lambda p: edit(p, lambda it: it.update(versions=None)),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_results_are_not_those_of_a_finished_run(how: str, settings: Settings) -> None:
    config = settings(method="linear")
    finetune(config)
    path = Path(config.output or "") / "results.json"
    DAMAGED[how](path)
    message = r"results\.json is damaged; remove it to train again, or choose another --output"
    with pytest.raises(ConfigError, match=message):
        finetune(config)
    path.unlink()
    assert isinstance(finetune(config), dict)


def test_seeds_have_the_same_figures(settings: Settings, tmp_path: Path) -> None:
    config = settings(method="linear", seeds=2)
    finetune(config)
    (tmp_path / "out" / "results.json").unlink()
    edit(tmp_path / "out/seed_1/results.json", lambda it: it["test"].pop("accuracy"))
    with pytest.raises(DataError, match=r"seed_1 has the figures .*, but seed_0 accuracy"):
        finetune(config)


def test_a_note_of_no_signal_is_none(tmp_path: Path) -> None:
    (tmp_path / ".stopped").write_bytes(b"\xff\xfe")
    assert run_folder.stopped_by(tmp_path) is None


def test_a_checkpoint_holds_the_epochs_of_its_own_step(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is written while the next epochs are trained."""
    add, pending = State.add, Event()

    def adding(self: State, *given: Any) -> None:
        add(self, *given)
        if len(self.epochs) == 2:
            pending.set()

    write = checkpoint._write_record

    def late(*given: Any) -> None:
        assert pending.wait(60)
        write(*given)

    monkeypatch.setattr(State, "add", adding)
    monkeypatch.setattr(checkpoint, "_write_record", late)
    monkeypatch.setattr(whole, "write_results", lambda *_: None)
    finetune(settings())
    for path in (tmp_path / "out" / "checkpoints").glob("step_*"):
        record = checkpoint_files.verify(path)
        assert [epoch["epoch"] for epoch in record["epochs"]] == list(
            range(1, record["step"] // 3 + 1)
        )
