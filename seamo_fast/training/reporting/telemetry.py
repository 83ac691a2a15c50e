"""What a run reports: metrics of each interval, to the screen and to files."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.files import write_text
from seamo_fast.training.recovery import run_folder

LOG: Final = logging.getLogger("seamo_fast")
PROBE: Final = "probe/"  # begins the names of what probes find


class MetricsFile:
    """metrics.jsonl: one line an interval, each step of the run at most once.

    Args:
        path: The file; lines after `step` (of a run that was killed later) are dropped, and so are
            broken ones, with a warning.
        step: Steps that the run has done.

    Raises:
        DataError: The file is there and cannot be read.
    """

    def __init__(self, path: Path, step: int) -> None:
        lines, broken = _parse(path)
        if broken:
            LOG.warning(
                f"{path}: {len(broken)} broken lines are removed, the first is line {broken[0]}; "
                "a crash or a power failure leaves such lines"
            )
        kept = {line["step"]: line for line in lines if line["step"] <= step}
        write_text(path, "".join(json.dumps(kept[number]) + "\n" for number in sorted(kept)))
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Adds a line, visible to other processes at once."""
        self._file.write(json.dumps(metrics) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics.jsonl; broken ones, as a power failure leaves, are left out.

    Raises:
        DataError: It cannot be read.
    """
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns the good lines of a metrics.jsonl, and the numbers of the broken ones from 1."""
    good, broken = [], []
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); move it away, or make it readable"
        ) from error
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text or b"{}")
        except (ValueError, RecursionError):
            line = None
        if _is_metrics(line):
            good.append(line)
        elif text:
            broken.append(number)
    return good, broken


def _is_metrics(line: Any) -> bool:
    """Whether a line has what is read of it: a step, and numbers or nothing where it is drawn."""
    return (
        isinstance(line, dict)
        and type(line.get("step")) is int
        and all(
            value is None or type(value) in (int, float)
            for key, value in line.items()
            if key.startswith(("loss", PROBE))
        )
    )


class Telemetry:
    """Where metrics and messages go: bar or lines, metrics.jsonl, TensorBoard, Weights & Biases.

    Args:
        folder: The run folder.
        step: Steps that the run has done.
        total: Steps of the whole run.
        settings: The run's, for Weights & Biases.
        tensorboard: Write TensorBoard events.
        wandb: Project of Weights & Biases; None for none.

    Raises:
        ConfigError: `wandb` is given and Weights & Biases is not installed.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        total: int,
        settings: Mapping[str, Any],
        *,
        tensorboard: bool,
        wandb: str | None,
    ) -> None:
        self._total = total
        self._wandb = None if wandb is None else _wandb_run(folder, wandb, settings)
        self._file = MetricsFile(folder / run_folder.METRICS, step)
        self._events = _events(folder / "tensorboard", step) if tensorboard else None
        self._bar = (
            tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self) -> None:
        """Moves the bar by one step."""
        if self._bar is not None:
            self._bar.update()

    def report(self, metrics: dict[str, Any], part: str, text: str) -> None:
        """Shows and files one interval's metrics.

        Args:
            metrics: With the key "step".
            part: Of the run, such as its stage.
            text: The metrics as one line, see `summary`.
        """
        self.file(metrics)
        if self._bar is not None:
            self._bar.set_description_str(part)
            self._bar.set_postfix_str(text)
        else:
            LOG.info(f"{part}  {metrics['step']}/{self._total}  {text}")

    def file(self, metrics: dict[str, Any]) -> None:
        """Files metrics of a step without showing them."""
        self._file.write(metrics)
        step = metrics["step"]
        numbers = {
            key: value
            for key, value in metrics.items()
            if isinstance(value, (int, float)) and key != "step"
        }
        if self._events is not None:
            for key, value in numbers.items():
                self._events.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def sync(self) -> None:
        """Waits until all metrics so far are on the disk."""
        self._file.sync()

    def say(self, message: str) -> None:
        """Shows a message without tearing the bar."""
        if self._bar is not None:
            self._bar.clear()
        LOG.info(message)

    def close(self) -> None:
        """Writes out what is buffered and ends the bar."""
        self._file.close()
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()
        if self._bar is not None:
            self._bar.close()


def _events(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def _wandb_run(folder: Path, project: str, settings: Mapping[str, Any]) -> Any:
    """Begins a run of Weights & Biases, or resumes the one that this run folder names."""
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            f"wandb {project!r} needs Weights & Biases: pip install 'seamo_fast[wandb]', or leave "
            "wandb null"
        ) from error
    name = folder / run_folder.WANDB / "id.txt"
    if not name.exists():
        name.parent.mkdir(exist_ok=True)
        write_text(name, uuid.uuid4().hex)
    return wandb.init(
        project=project,
        dir=str(folder),
        id=name.read_text(encoding="utf-8"),
        resume="allow",
        config=dict(settings),
    )


def summary(metrics: Mapping[str, Any]) -> str:
    """Returns an interval's metrics as one line."""
    norm = metrics["grad_norm"]
    parts = [
        "loss not finite" if norm is None else _losses(metrics),
        *probed(metrics),
        f"lr {metrics['lr']:.2e}",
        f"grad {'not finite' if norm is None else format(norm, '.2f')}",
        f"{metrics['samples_per_second']:.1f} samples/s",
        f"MFU {metrics['mfu']:.0%}",
        f"wait {metrics['data_wait']:.0%}",
        f"{metrics['memory_gib']:.2f} GiB",
    ]
    if metrics["seconds_left"]:
        parts.append(f"{tqdm.format_interval(metrics['seconds_left'])} left")
    for key, word in (("skipped", "skipped steps"), ("bad_records", "damaged records")):
        if metrics.get(key):
            parts.append(f"{word}: {metrics[key]}")
    return "  ".join(parts)


def probed(metrics: Mapping[str, Any]) -> list[str]:
    """Returns one text about what a probe found, none without a probe."""
    parts = [
        f"{key.removeprefix(PROBE)} {value:.4f}"
        for key, value in metrics.items()
        if key.startswith(PROBE)
    ]
    return [f"probe ({', '.join(parts)})"] if parts else []


def _losses(metrics: Mapping[str, Any]) -> str:
    """Returns the loss and its summands, without modalities that had no target."""
    if metrics["loss"] is None:
        return "no loss, as there was no target"
    parts = [
        f"{key.removeprefix('loss/')} {value:.4f}"
        for key, value in metrics.items()
        if key.startswith("loss/") and value is not None
    ]
    return f"loss {metrics['loss']:.4f} ({', '.join(parts)})"
