"""Do the reference, our model, its fast operations and torch.compile train alike?

Each variant trains the same weights on the same batches in the same views. Rounding parts the
curves in time; how far is held against how far apart other seeds are.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from seamo_fast.errors import SeaMoError
from seamo_fast.files import results_folder, write_text
from seamo_fast.kernels import _registry
from seamo_fast.profile.config import ParityConfig
from seamo_fast.profile.tables import as_text, write_csv
from seamo_fast.profile.variant import REFERENCE
from seamo_fast.training.config import to_yaml
from seamo_fast.training.reporting.figures import new_figure, save_figure

LOG: Final = logging.getLogger("seamo_fast")
FIRST: Final = 200  # steps in which rounding has not grown yet
CLOSE: Final = 1e-4  # how far fast operations may be from the reference's there, relative
_WINDOWS: Final = 50  # a curve is smoothed over a 50th of its steps
_FAST, _OPERATIONS, _COMPILED = "fast", "reference-ops", "compiled"


@dataclass(frozen=True)
class Variant:
    """One run of the comparison.

    Attributes:
        name: Column of the curves.
        seed: The run's seed.
        settings: What differs from the common settings, as on the command line.
        environment: Variables of its process.
    """

    name: str
    seed: int
    settings: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def variants(config: ParityConfig) -> list[Variant]:
    """Returns the runs: the reference, ours with slow and fast operations, compiled, seeds."""
    seed = config.run.seed
    runs = [
        Variant(REFERENCE, seed),
        Variant(_OPERATIONS, seed, environment={_registry.VARIABLE: _registry.REFERENCE}),
        Variant(_FAST, seed),
    ]
    if config.parity.compiled:
        runs.append(Variant(_COMPILED, seed, ("--run.compile=regional",)))
    others = range(seed + 1, seed + config.parity.seeds)
    return runs + [Variant(f"{_FAST}, seed {other}", other) for other in others]


def compare(config: ParityConfig) -> str:
    """Trains all variants, writes curves.csv, parity.json and parity.png, returns a table.

    Raises:
        SeaMoError: A variant failed; the message says which and where its output is.
    """
    with results_folder(config.parity.folder, Path("runs/parity"), "parity.folder") as folder:
        return _compare(config, folder)


def _compare(config: ParityConfig, folder: Path) -> str:
    (folder / "losses").mkdir(parents=True, exist_ok=True)
    common = replace(config, run=replace(config.run, compile="off"))
    write_text(folder / "config.yaml", to_yaml(common))
    runs = variants(config)
    with ThreadPoolExecutor(config.parity.jobs) as pool:
        curves = dict(pool.map(lambda variant: (variant.name, _train(variant, folder)), runs))
    names = list(curves)
    rows = zip(range(1, config.parity.steps + 1), *(curves[n].tolist() for n in names), strict=True)
    write_csv(folder / "curves.csv", ["step", *names], list(rows))
    found = judge(curves)
    write_text(folder / "parity.json", json.dumps({**_setting(config), **found}, indent=1))
    draw(folder / "parity.png", curves)
    return describe(found)


def _train(variant: Variant, folder: Path) -> np.ndarray:
    """Runs a variant in its own process; returns its losses [steps]."""
    stem = variant.name.replace(", ", "-").replace(" ", "-")
    target, log = folder / "losses" / f"{stem}.csv", folder / "losses" / f"{stem}.log"
    command = [sys.executable, "-m", "seamo_fast.profile.variant", variant.name, str(target)]
    settings = ["--config", str(folder / "config.yaml"), f"--run.seed={variant.seed}"]
    LOG.info(f"{variant.name}: {target}")
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(
            [*command, *settings, *variant.settings],
            env={**os.environ, **variant.environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if status:
        last = log.read_text(encoding="utf-8").strip().rpartition("\n")[2]
        raise SeaMoError(
            f"variant {variant.name!r} ended with exit status {status} ({last or 'no output'}); "
            f"its output is in {log}, its losses so far in {target}"
        )
    return np.loadtxt(target, delimiter=",", skiprows=1, ndmin=2)[:, 1]


def judge(curves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Compares loss curves.

    A smoothed curve is a moving mean over a 50th of the steps. The spread of the seeds is the
    median over steps of (highest - lowest) / mean of their smoothed curves. The verdict is `same`
    if every smoothed curve stays within that spread of the reference's, and the fast operations
    within 1e-4 of the reference operations at each of the first 200 steps.

    Args:
        curves: Losses [steps] of each variant, in the order of `variants`.

    Returns:
        What parity.json holds of the result; differences are relative.
    """
    reference = curves[REFERENCE]
    smooth = {name: smoothed(curve) for name, curve in curves.items()}
    seeds = np.stack([smooth[name] for name in curves if name.startswith(_FAST)])
    spread = float(np.median(np.ptp(seeds, axis=0) / seeds.mean(axis=0)))
    compared = {
        name: {
            "first": _largest(curve[:FIRST], reference[:FIRST]),
            "smoothed": _largest(smooth[name], smooth[REFERENCE]),
            "end": _largest(smooth[name][-1:], smooth[REFERENCE][-1:]),
        }
        for name, curve in curves.items()
        if name in (_OPERATIONS, _FAST, _COMPILED)
    }
    close = _largest(curves[_FAST][:FIRST], curves[_OPERATIONS][:FIRST])
    apart = [name for name, found in compared.items() if not found["smoothed"] <= spread]
    if not close <= CLOSE:
        apart.append(f"{_FAST} from {_OPERATIONS}")
    return {
        "variants": compared,
        "fast_to_reference_ops_first": close,
        "spread_of_seeds": spread,
        "window": len(reference) - len(smooth[REFERENCE]) + 1,
        "apart": apart,
        "verdict": "different" if apart else "same",
    }


def smoothed(curve: np.ndarray) -> np.ndarray:
    """Returns the moving mean of a curve [steps] over a 50th of its steps."""
    window = max(1, len(curve) // _WINDOWS)
    return np.convolve(curve, np.full(window, 1 / window), mode="valid")


def _largest(curve: np.ndarray, other: np.ndarray) -> float:
    apart = np.abs(curve - other)
    # a step without a target has loss 0 in both
    return float(
        np.max(np.divide(apart, np.abs(other), out=np.zeros_like(apart), where=apart != 0))
    )


def _setting(config: ParityConfig) -> dict[str, Any]:
    return {
        "steps": config.parity.steps,
        "seeds": config.parity.seeds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def describe(found: Mapping[str, Any]) -> str:
    """Returns the result of `judge` as text."""
    header = ("to the reference, relative", f"first {FIRST} steps", "smoothed", "at the end")
    rows = [
        (name, *(f"{values[key]:.1e}" for key in ("first", "smoothed", "end")))
        for name, values in found["variants"].items()
    ]
    apart = f": {', '.join(found['apart'])}" if found["apart"] else ""
    return "\n".join(
        [
            as_text(header, rows),
            f"fast to reference operations in the first {FIRST} steps: "
            f"{found['fast_to_reference_ops_first']:.1e} (at most {CLOSE:.0e})",
            f"spread of the seeds: {found['spread_of_seeds']:.1e}",
            f"verdict: {found['verdict']}{apart}",
        ]
    )


def draw(path: Path, curves: Mapping[str, np.ndarray]) -> None:
    """Draws the smoothed curves, and below how far each is from the reference step by step."""
    figure = new_figure((8, 7))
    above, below = figure.subplots(2, sharex=True)
    reference = curves[REFERENCE]
    steps = np.arange(1, len(reference) + 1)
    for name, curve in curves.items():
        smooth = smoothed(curve)
        same = name in (REFERENCE, _OPERATIONS, _FAST, _COMPILED)
        above.plot(steps[-len(smooth) :], smooth, "-" if same else ":", label=name, linewidth=1)
        if same and name != REFERENCE:
            distance = np.abs(curve - reference) / np.abs(reference)
            below.semilogy(steps, distance, ".", label=name, markersize=2)
    above.set_ylabel("loss, smoothed")
    below.set_ylabel("difference to the reference, relative")
    below.set_xlabel("step")
    above.legend(fontsize=7)
    below.legend(fontsize=7)
    save_figure(figure, path)
