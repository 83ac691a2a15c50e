"""Where the time of a training step goes: by phase, by operator, and as a trace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from seamo_fast.files import results_folder, write_text
from seamo_fast.model.seamo import SeaMo
from seamo_fast.profile.config import StepConfig
from seamo_fast.profile.phases import Phases
from seamo_fast.profile.steps import ProfiledSteps
from seamo_fast.profile.tables import Row, as_text, draw_bars, write_csv
from seamo_fast.training import model_setup, precision
from seamo_fast.training.reporting.meter import peak_memory
from seamo_fast.training.step import step_flops

_SHOWN: Final = 20  # operators in the text and the plot; the CSV has all
_PHASES: Final = ("phase", "ms/step", "share %")
_OPERATORS: Final = ("operator", "calls/step", "ms/step", "share %")


@dataclass(frozen=True)
class Compilations:
    """What torch.compile has done in this process, by torch's own counters."""

    programs: int
    graph_breaks: int

    @classmethod
    def now(cls) -> Compilations:
        """Reads the counters."""
        counters = torch._dynamo.utils.counters
        return cls(counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))

    def since(self, earlier: Compilations) -> Compilations:
        """Returns what has been done after an earlier count."""
        return Compilations(
            self.programs - earlier.programs, self.graph_breaks - earlier.graph_breaks
        )


def profile_step(config: StepConfig) -> str:
    """Profiles steps of a run's last stage; writes tables, trace and plot, returns the tables.

    Raises:
        SeaMoError: The run could not start with these settings.
    """
    with results_folder(config.profile.folder, Path("runs/profile"), "profile.folder") as folder:
        return _profile_step(config, folder)


def _profile_step(config: StepConfig, folder: Path) -> str:
    begin = Compilations.now()
    device = precision.choose_device(config.run.device)
    phases = Phases(device)
    steps = ProfiledSteps(config, _total(config), phase=phases.time)
    rate = precision.matmul_rate(device, steps.dtype)
    # a model that is one program cannot be interrupted by hooks
    if config.run.compile != "full" and isinstance(steps.model, SeaMo):
        phases.attach(steps.model)
    for _ in range(config.profile.warmup):
        steps.step()
    phases.seconds()
    warm = Compilations.now()
    seconds = _timed(steps, config.profile.steps)
    by_phase = _phase_rows(phases.seconds(), seconds, config.profile.steps)
    compiled, late = Compilations.now().since(begin), Compilations.now().since(warm)
    memory = peak_memory(device)
    by_operator = _operator_rows(_trace(steps, config.profile.traced, folder), config)
    how = model_setup.choose_compile(config.run.compile, device)
    lines = [
        _describe(config, steps),
        _speed(config, steps, seconds / config.profile.steps, rate),
        f"peak memory {memory / 2**30:.2f} GiB",
        f"compiled ({how}): {compiled.programs} programs, "
        f"{compiled.graph_breaks} graph breaks, "
        f"{late.programs} recompilations after warm-up",
    ]
    text = "\n\n".join(
        [
            "\n".join(lines),
            as_text(_PHASES, by_phase),
            as_text(_OPERATORS, by_operator[:_SHOWN]),
            f"written to {folder}",
        ]
    )
    write_csv(folder / "phases.csv", _PHASES, by_phase)
    write_csv(folder / "operators.csv", _OPERATORS, by_operator)
    write_text(folder / "profile.txt", f"{text}\n")
    charts = {
        "phases of a step": {str(row[0]): float(row[1]) for row in by_phase},
        "operators": {str(row[0]): float(row[2]) for row in by_operator[:_SHOWN]},
    }
    draw_bars(folder / "profile.png", charts, "ms a step")
    return text


def _total(config: StepConfig) -> int:
    return config.profile.warmup + config.profile.steps + config.profile.traced


def _timed(steps: ProfiledSteps, count: int) -> float:
    """Returns the seconds of so many steps, to the end of the device's work."""
    precision.synchronize(steps.device)
    start = time.perf_counter()
    for _ in range(count):
        steps.step()
    precision.synchronize(steps.device)
    return time.perf_counter() - start


def _trace(steps: ProfiledSteps, count: int, folder: Path) -> Any:
    """Records so many steps as trace.json; returns torch's averages by operator."""
    activities = [ProfilerActivity.CPU]
    if steps.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        for _ in range(count):
            steps.step()
        precision.synchronize(steps.device)
    recorded.export_chrome_trace(str(folder / "trace.json"))
    return recorded.key_averages()


def _phase_rows(found: dict[str, float], seconds: float, count: int) -> list[Row]:
    """Returns rows of phases in their order; `between` is the time outside of them."""
    found = {**found, "between": max(0.0, seconds - sum(found.values()))}
    return [(phase, 1000 * value / count, 100 * value / seconds) for phase, value in found.items()]


def _operator_rows(averages: Any, config: StepConfig) -> list[Row]:
    """Returns rows of operators by their own time, on a GPU that of their kernels there."""
    on_gpu = precision.choose_device(config.run.device).type == "cuda"
    count = config.profile.traced
    found = []
    for each in averages:
        micros = each.self_device_time_total if on_gpu else each.self_cpu_time_total
        # kernels have rows of their own, and are counted with the operator that starts them
        if micros > 0 and each.device_type == DeviceType.CPU:
            name = f"Python in {each.key}" if each.is_user_annotation else each.key
            found.append((name, each.count / count, micros / 1000 / count))
    total = sum(row[2] for row in found)
    found.sort(key=lambda row: -row[2])
    return [(*row, 100 * row[2] / total) for row in found]


def _describe(config: StepConfig, steps: ProfiledSteps) -> str:
    parameters = sum(parameter.numel() for parameter in steps.model.parameters())
    return (
        f"{parameters / 1e6:.2f} M parameters, batches of {config.data.batch_size}, "
        f"{steps.stage.seasons} seasons of {', '.join(steps.stage.modalities)}; "
        f"{steps.device.type} in {str(steps.dtype).removeprefix('torch.')}, "
        f"{torch.get_num_threads()} threads"
    )


def _speed(config: StepConfig, steps: ProfiledSteps, seconds: float, rate: float) -> str:
    samples = config.data.batch_size
    flops = samples * step_flops(config, steps.shards, steps.stage)
    return (
        f"{1000 * seconds:.1f} ms a step, {samples / seconds:.1f} samples/s; "
        f"{flops / 1e9:.2f} GFLOP a step, {flops / seconds / 1e9:.1f} GFLOP/s, "
        f"{flops / seconds / rate:.0%} of a matrix product's {rate / 1e9:.1f} GFLOP/s"
    )
