"""What a finetuning leaves in its folder: results, predictions, the model and pictures."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from seamo_fast._version import __version__
from seamo_fast.checkpoint_files import MODEL
from seamo_fast.files import replacing, write_text, writing
from seamo_fast.tasks.evaluation.intervals import Estimate
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.finetuning.results.folder import BEST, RESULTS
from seamo_fast.tasks.finetuning.scores import Figures
from seamo_fast.training.recovery import run_folder

PREDICTIONS: Final = "predictions.safetensors"


def describe(
    figures: Figures,
    whole: Mapping[str, Estimate],
    by_class: Sequence[Estimate],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Returns what results say of the test part, JSON-able: figures with 95 % intervals.

    Args:
        figures: Of the test part.
        whole: Some of them with intervals.
        by_class: The figure of each class.
        classes: Their names.
    """
    values = {name: {"value": finite(value)} for name, value in figures.values.items()}
    values.update({name: _estimate(estimate) for name, estimate in whole.items()})
    confusion = None if figures.confusion is None else figures.confusion.tolist()
    named = dict(zip(classes, map(_estimate, by_class), strict=True))
    return {"test": values, "test_by_class": named, "confusion": confusion}


def _estimate(found: Estimate) -> dict[str, float | None]:
    return {name: finite(value) for name, value in found._asdict().items()}


def finite(value: float) -> float | None:
    """Returns a number as JSON has it: None for NaN and infinity."""
    return value if math.isfinite(value) else None


def write_results(
    folder: Path, model: TaskModel, figures: Figures, results: Mapping[str, Any]
) -> None:
    """Writes the results of a run, `results.json` last, and removes what it needed to resume.

    Raises:
        DataError: The disk is full or not writable.
        CheckpointError: The same, of the model.
    """
    with writing(folder / PREDICTIONS), replacing(folder / PREDICTIONS) as temporary:
        save_file(figures.predictions, temporary)
    model.save(folder / MODEL)
    write_json_results(folder, results)
    shutil.rmtree(folder / run_folder.CHECKPOINTS, ignore_errors=True)
    (folder / BEST).unlink(missing_ok=True)


def report(results: Mapping[str, Any], folder: Path) -> str:
    """Returns the figures of the test part as lines for the screen."""
    by_class = {f"  {name}": each for name, each in results["test_by_class"].items()}
    items = results["items"]["test"]
    weights = f"{items} test items, weights: {results['weights']}, {results['seconds']:.0f} s"
    return f"{table(by_class | results['test'])}\n{weights}\nwritten to {folder}"


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns figures with their intervals, one a line."""
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {_shown(each)}" for name, each in rows.items())


def _shown(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "no label"
    interval = (
        f" ({found['low']:.4f} to {found['high']:.4f})" if found.get("low") is not None else ""
    )
    return f"{found['value']:.4f}{interval}"


def write_json_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Writes `results.json`; a folder that has it is finished.

    Raises:
        DataError: The disk is full or not writable.
    """
    with writing(folder / RESULTS):
        write_text(folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Returns the versions that results were made with."""
    return {"seamo_fast": __version__, "torch": torch.__version__}
