"""Inputs that once did harm: to a machine, to a model's answer, or to another run's results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml

from seamo_fast import SeaMoBackbone, pretrain
from seamo_fast import pack as pack_command
from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.errors import CheckpointError, SeaMoError
from tests.attack.ground import MODALITIES, SEASONS, Ground, sample
from tests.attack.isolate import Refused, command
from tests.attack.series import SERIES, write_series
from tests.attack.tensors import good, model

EVIL: Final = """#include <stdio.h>
__attribute__((constructor)) static void run(void) { FILE *f = fopen("%s", "w"); if (f) fclose(f); }
"""
Change = Callable[[int, dict[str, list[np.ndarray]], dict[str, list[bool]]], None]


def shards(folder: Path, change: Change, samples: int = 8) -> Path:
    """Writes samples that a function changes in place."""
    writer = ShardWriter(folder, MODALITIES, SEASONS, source="made", release="r")
    for number in range(samples):
        made = sample(number)
        valid = {m.name: [True] * SEASONS for m in MODALITIES}
        grids = {name: [grid.copy() for grid in of_name] for name, of_name in made.grids.items()}
        grids["s1grd"][0][grids["s1grd"][0] == 0] = -14
        change(number, grids, valid)
        days: list[date | None] = [date(2020, 3, 5), date(2020, 9, 5)]
        writer.add(f"place-{number}", grids, {m.name: days for m in MODALITIES}, valid)
    writer.finish()
    return folder


def train(ground: Ground, folder: Path, *arguments: object) -> list[dict[str, Any]]:
    """Runs `pretrain` in this process; returns what it logged."""
    (folder / "c.yaml").write_text(yaml.safe_dump(ground.settings))
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    command(pretrain.main, "--config", folder / "c.yaml", "--run.folder", run, *arguments)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def planted_library(ground: Ground, folder: Path) -> str:
    from seamo_fast.kernels import _native

    mark, cache = folder / "run", folder / "cache"
    print_ = "from seamo_fast.kernels import _native as n; print(n.fingerprint('cpu'))"
    where = cache / "native" / f"cpu-{_python(print_, folder).strip()}"
    where.mkdir(parents=True)
    (folder / "e.c").write_text(EVIL % mark)
    library = where / _native._FILES["cpu"]
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "e.c"], check=True)
    (where / "_cpu.json").write_text(json.dumps({"fingerprint": where.name[4:], "failure": None}))
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o777)
        if os.getuid() == 0:
            os.chown(path, 65534, 65534)
    load = "from seamo_fast.kernels import _native; _native.load()"
    _python(load, folder, SEAMO_FAST_CACHE=str(cache))
    return "a library that anybody may write was run" if mark.exists() else ""


def _python(code: str, folder: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **more},
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def stopped_run(ground: Ground, folder: Path) -> str:
    (folder / "c.yaml").write_text(yaml.safe_dump(ground.settings))
    line = [sys.executable, "-m", "seamo_fast.pretrain", "--config", "c.yaml", "--run.folder", "r"]
    line += ["--schedule.multi_season.epochs", "10000", "--run.checkpoint_every", "9999"]
    process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
    metrics = folder / "r/metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    status = process.wait()
    return "" if status == 128 + signal.SIGTERM else f"a run that was stopped ended with {status}"


def same_modality_twice(ground: Ground, folder: Path) -> str:
    return _refused(lambda: train(ground, folder, "--schedule.modalities", "[s2l2a,s2l2a]"))


def _refused(door: Callable[[], object]) -> str:
    try:
        door()
    except (Refused, SeaMoError) as error:
        return "" if "\n" not in str(error) else f"{error} has several lines"
    return "accepted"


def absent_modality(ground: Ground, folder: Path) -> str:
    def rare(number: int, grids: object, valid: dict[str, list[bool]]) -> None:
        if number:
            valid["s1grd"] = [False] * SEASONS

    path = shards(folder / "rare", rare)
    options = ("--data.path", path, "--data.batch_size", 1, "--run.steps_per_stage", 8,
               "--optim.blr", 1e-9, "--run.checkpoint_every", 999, "--run.log_every")  # fmt: skip
    each = [line.get("loss/s1grd") or 0 for line in train(ground, folder, *options, 1)]
    [together] = train(ground, folder, *options, 8)
    true, said = max(each), together["loss/s1grd"]
    return "" if abs(true - said) < 1e-3 * true else f"the mean is {said}, not {true}"


def two_sources(ground: Ground, folder: Path) -> str:
    for name in ("a", "b"):
        write_series(folder / name / "raw")
        if name == "b":
            for place in (folder / name / "raw").iterdir():
                (place / "s2_20200301.tif").write_bytes((place / "s2_20200901.tif").read_bytes())
    (folder / "m.yaml").write_text(yaml.safe_dump(SERIES))
    options = (folder / "out", "--mapping", folder / "m.yaml", "--workers", 1, "--shard_size", 1)
    command(pack_command.main, folder / "a/raw", *options)
    (folder / "out/manifest.json").unlink()
    shutil.rmtree(folder / "out/shard-00001")
    return _refused(lambda: command(pack_command.main, folder / "b/raw", *options))


def two_packs(ground: Ground, folder: Path) -> str:
    for number in range(12):
        write_series(folder / "in" / str(number))
    series = {
        **SERIES,
        "modalities": {
            "s2": {**SERIES["modalities"]["s2"], "files": r"(?P<place>.*)/s2_(?P<date>\d{8})\.tif"}
        },
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(series))
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            status = 3
            try:
                options = ("--mapping", folder / "m.yaml", "--workers", 1, "--shard_size", 2)
                status = command(pack_command.main, folder / "in", folder / "out", *options)
            except Refused as error:
                status = 4 if "No such file" in str(error) else 2
            finally:
                os._exit(status)
        children.append(child)
    ends = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    if ends not in ([0, 0], [0, 2]):
        return f"statuses {ends}"
    found = ShardSet(folder / "out")
    return "" if len(found) == 24 and found.verify() == [] else f"{len(found)} of 24 samples"


def no_target(ground: Ground, folder: Path) -> str:
    def dead(number: int, grids: dict[str, list[np.ndarray]], valid: object) -> None:
        grids["s2l2a"][2][:] = 0
        grids["s2l2a"][1][:] = 0
        grids["s2l2a"][0][:] = 0

    def none(number: int, grids: object, valid: dict[str, list[bool]]) -> None:
        for name in valid:
            valid[name] = [False] * SEASONS

    lines = train(ground, folder, "--data.path", shards(folder / "dead", dead))
    if any(line.get("loss/s2l2a") == 0 for line in lines):
        return "a modality without targets has the loss 0"
    return _refused(lambda: train(ground, folder, "--data.path", shards(folder / "none", none)))


def units(ground: Ground, folder: Path) -> str:
    import warnings

    x = good(np.random.default_rng(0))
    wrong = {"s2l2a": x["s2l2a"] / 10_000}, {"s1grd": 10 ** (x["s1grd"] / 10)}
    for each in wrong:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model()(each)
        if not said:
            return f"no word about the unit of {next(iter(each))}"
    return ""


def float_minimum(ground: Ground, folder: Path) -> str:
    def holes(number: int, grids: dict[str, list[np.ndarray]], valid: object) -> None:
        grids["s1grd"][0][:, :, number % 7, 3] = np.finfo("f4").min

    lines = train(ground, folder, "--data.path", shards(folder / "holes", holes))
    x = good(np.random.default_rng(0))
    x["s1grd"][0, 0, 0, 3, 3] = torch.finfo(torch.float32).min
    finite = bool(model()(x).isfinite().all()) and np.isfinite(lines[-1]["loss"])
    return "" if finite and not lines[-1].get("skipped") else "not finite"


def permissions(ground: Ground, folder: Path) -> str:
    os.umask(0o022)
    train(ground, folder)
    newest = max((folder / "run/checkpoints").glob("step_*"))
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in newest.iterdir()}
    if set(modes.values()) != {"0o644"}:
        return f"under umask 022 the modes are {modes}"
    if os.getuid():
        return ""
    (newest / "model.safetensors").chmod(0o600)
    for parent in list(newest.parents)[:-2]:
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        SeaMoBackbone.from_checkpoint(newest)
    except CheckpointError:
        return ""
    finally:
        os.seteuid(0)
    return "another user read a file of mode 0600"


def planted_home(ground: Ground, folder: Path) -> str:
    code = "from seamo_fast.kernels import _native; _native.load()"
    homeless = {k: v for k, v in os.environ.items() if k not in ("HOME", "SEAMO_FAST_CACHE")}
    line = [sys.executable, "-c", code]
    subprocess.run(line, cwd=folder, capture_output=True, env=homeless)
    found = [path.name for path in folder.iterdir()]
    return f"made {found} in the working directory" if "~" in found else ""


CASES: Final[Sequence[Callable[[Ground, Path], str]]] = (
    planted_library, planted_home, stopped_run, same_modality_twice, absent_modality, two_sources,
    two_packs, no_target, units, float_minimum, permissions,
)  # fmt: skip
KNOWN: Final = {case.__name__: case for case in CASES}
