"""Whole command lines, each in an interpreter of its own: statuses and what stderr says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.training.config import PretrainConfig, to_dict
from tests.attack import settings, trees, weights
from tests.attack.ground import Ground
from tests.attack.isolate import Attack, Refused, refusal
from tests.attack.series import SERIES

Line = Callable[[np.random.Generator, Ground, Path], list[object]]


def dry_run(rng: np.random.Generator, ground: Ground, folder: Path) -> list[object]:
    whole = to_dict(PretrainConfig())
    tree = {name: {**whole[name], **ground.settings.get(name, {})} for name in whole}
    (folder / "c.yaml").write_bytes(settings._text(rng, tree)[0])
    return ["pretrain", "--config", "c.yaml", "--dry_run"]


def resume(rng: np.random.Generator, ground: Ground, folder: Path) -> list[object]:
    run = shutil.copytree(ground.run, folder / "run")
    weights.spoil_record(rng, run)
    return ["pretrain", "--config", ground.folder / "run.yaml", "--run.folder", run]


def shards(rng: np.random.Generator, ground: Ground, folder: Path) -> list[object]:
    path = shutil.copytree(ground.npy, folder / "shards") / "manifest.json"
    path.write_bytes(trees.damage_text(rng, path.read_bytes())[0])
    return [str(rng.choice(["stats", "view"])), path.parent]


def pack(rng: np.random.Generator, ground: Ground, folder: Path) -> list[object]:
    (folder / "m.yaml").write_bytes(settings._text(rng, SERIES)[0])
    return ["pack", ground.series, "out", "--mapping", "m.yaml", "--workers", "1"]


def words(rng: np.random.Generator, ground: Ground, folder: Path) -> list[object]:
    name = str(rng.choice(["pretrain", "finetune", "pack", "stats", "view", "info", "strange", ""]))
    options = ["--config", "-1", "", "é", "a b", "--help", "--run", "--data=", "/dev/null", "~",
               "--model.width=1e9", "--workers=0", "--print_config", "--dry_run"]  # fmt: skip
    given = [str(rng.choice(options)) for _ in range(int(rng.integers(3)))]
    more = ["--dry_run"] if name == "pretrain" else []
    return [*([name] if name else []), *given, *more]


LINES: Final[tuple[Line, ...]] = (dry_run, resume, shards, pack, words)


def line(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A command with a damaged file, or with words that it does not know."""
    what = LINES[int(rng.integers(len(LINES)))](rng, ground, folder)
    words = [sys.executable, "-m", "seamo_fast", *map(str, what)]

    def door() -> int:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode == 2:
            raise Refused(refusal(done.stderr))
        assert "Traceback" not in done.stderr, done.stderr[-600:]
        return done.returncode

    def check(status: int) -> str:
        return "" if status == 0 else f"status {status}"

    return Attack(" ".join(map(str, what)), door, check, 120.0)
