"""The commands of the README, one after the other as a reader gives them, on small data."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.packing.test_pack_kills import write_locations
from tests.eurosat import make_eurosat
from tests.test_docs import README, commands

# a model and a run of this size, in place of days
SMALL = {"base": ["tiny", "--data.batch_size", "2", "--run.steps_per_stage", "2"]}


def shortened(words: list[str], data: Path) -> list[str]:
    """A command as printed, but for where the data are and how long it takes."""
    found = []
    for word in words:
        found += SMALL.get(word, [word.replace("/data/", f"{data}/")])
    return found


def run(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_runs(tmp_path: Path) -> None:
    write_locations(tmp_path / "data" / "ssl4eo-s12", 4, dates=4)
    make_eurosat(tmp_path / "EuroSAT_RGB", "eurosat_rgb")
    seen = []
    for words in commands(README):
        if words[:2] != ["python", "-m"]:
            assert words[0] == "make"  # what make does is what starts this test
            continue
        seen.append(words[2].removeprefix("seamo_fast."))
        given = shortened(words, tmp_path / "data")
        if seen[-1] == "evaluate":  # of a checkpoint that make pretrain leaves
            (made,) = (tmp_path / "runs").iterdir()
            made.rename(tmp_path / "runs" / "demo")
        if seen[-1] == "finetune":
            given += ["--epochs", "1"]
        run([sys.executable, *given[1:]], tmp_path)
    assert seen == ["pack", "stats", "view", "pretrain", "pretrain", "evaluate", "finetune"]
    assert (tmp_path / "view.png").stat().st_size > 0
    results = list((tmp_path / "runs").glob("*/results.json"))
    assert len(results) == 2
    assert all(path.stat().st_size > 0 for path in results)
