"""An evaluation that is killed anywhere ends, given again, with the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eurosat import make_eurosat
from tests.tasks.evaluation.toys import write_checkpoint

# Kills itself when a function has been called so many times: before it acts, so that all that was
# written before is there.
KILLED = """
import os, signal, sys
from importlib import import_module
module, name, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
owner = import_module(module)
if "." in name:
    owner, name = getattr(owner, name.split(".")[0]), name.split(".")[1]
function, left = getattr(owner, name), [calls]
def killing(*args, **kwargs):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)
setattr(owner, name, killing)
from seamo_fast.evaluate import main
sys.exit(main(sys.argv[4:]))
"""
PHASES = {
    "statistics": ("seamo_fast.tasks.features.extract", "write_json", 1),
    "first features": ("seamo_fast.tasks.features.store", "Store.write", 2),
    "half written": ("seamo_fast.files", "sync", 9),
    "last features": ("seamo_fast.tasks.features.store", "Store.write", 11),
    "fitting": ("seamo_fast.tasks.evaluation.fit", "fit_probe", 4),
    "judging": ("seamo_fast.tasks.evaluation.judge", "_predict", 5),
    "results": ("seamo_fast.tasks.evaluation.output", "write_text", 2),
}
FILES = ("results.json", "predictions.safetensors", "table.md")


def start(folder: Path, words: list[str], arguments: list[str]) -> int:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "SEAMO_FAST_CACHE": str(folder / "cache")}
    command = [sys.executable, *words, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("data")
    data = make_eurosat(root / "eurosat", "eurosat_rgb", 5)
    checkpoint = write_checkpoint(root / "model.safetensors")
    rows = ["--baselines", "[statistics, pca]", "--shots", "[1]"]
    return [str(checkpoint), "--data", str(data), *rows, "--bootstrap", "100"]


@pytest.fixture(scope="module")
def undisturbed(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder, ["-m", "seamo_fast.evaluate"], arguments) == 0
    return folder / "runs/evaluate-eurosat"


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_the_same_command_ends_with_the_same_bits(
    phase: str, arguments: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    module, name, calls = PHASES[phase]
    killed = start(tmp_path, ["-c", KILLED, module, name, str(calls)], arguments)
    assert killed == -signal.SIGKILL
    assert start(tmp_path, ["-m", "seamo_fast.evaluate"], arguments) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["evaluate-eurosat"]
    for file in FILES:
        found = tmp_path / "runs/evaluate-eurosat" / file
        assert found.read_bytes() == (undisturbed / file).read_bytes(), file
