"""The folder of an evaluation: written at the end, never over another's results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from seamo_fast.errors import ConfigError
from seamo_fast.files import replacing, results_folder, write_text, writing
from seamo_fast.tasks.evaluation.judge import Judged
from seamo_fast.tasks.evaluation.table import as_markdown, draw

RESULTS: Final = "results.json"  # written last: a folder without it is not finished


@contextmanager
def open_folder(given: str | None, name: str) -> Iterator[Path]:
    """Makes the folder of the results, which has none yet and no other process may use.

    Args:
        given: What the user asks for; None for a new one, runs/<name> or with a number.
        name: See above.

    Raises:
        ConfigError: The folder has results already, or is in use.
    """
    with results_folder(given, Path("runs") / name, "output") as folder:
        if (folder / RESULTS).exists():
            raise ConfigError(f"output {folder} has {RESULTS} already; give another folder")
        yield folder


def write_results(
    folder: Path, results: Mapping[str, Any], judged: Judged, facts: Mapping[str, Any]
) -> None:
    """Writes predictions, pictures and tables, and the results last.

    The results depend on the data, the weights and the settings alone; what else there is to say of
    a run, such as how long it took, is in `run.json`.

    Raises:
        DataError: The disk is full or not writable.
    """
    with writing(folder / RESULTS):
        with replacing(folder / "predictions.safetensors") as temporary:
            save_file(_predictions(judged), temporary)
        with replacing(folder / "table.png") as temporary:
            draw(dict(results)).savefig(temporary, format="png", dpi=150)
        write_text(folder / "table.md", as_markdown(dict(results)))
        write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")
        write_text(folder / RESULTS, json.dumps(results, indent=1) + "\n")


def _predictions(judged: Judged) -> dict[str, Tensor]:
    """Returns [draws, items, ...] of each "column/row", and the truth."""
    found = {
        f"{column}/{row}": torch.stack(draws).contiguous()
        for column, rows in judged.predictions.items()
        for row, draws in rows.items()
    }
    return found | ({"truth": judged.truth} if judged.truth.numel() else {})
