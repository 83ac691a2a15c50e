"""Which number format the matrix products run in, and how fast they are on this device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from seamo_fast.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Returns the device of a run; `auto` is a GPU where there is one.

    That is the first one, and under `torchrun` the one with the number of the local rank.

    Raises:
        ConfigError: The device does not exist here, or is one GPU for all ranks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is not None and name.startswith("cuda"):
        if name != "cuda":
            raise ConfigError(
                f"run.device must be auto, cuda or cpu under torchrun, where each rank takes the "
                f"GPU of its own number, but got {name!r}"
            )
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"run.device {name!r} cannot be used here: {reason}") from error
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Returns the dtype of matrix products.

    `auto` is bfloat16 on GPUs that have it in hardware and on CPUs with matrix units for it. Other
    CPUs emulate it, up to hundreds of times slower. Nothing is timed: on a busy machine the same
    command would choose now one and now the other, and a run could not be repeated.
    """
    if precision == "auto":
        precision = "bf16" if _has_fast_bfloat16(device) else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    facts = cpu_facts()
    flags = facts.get("flags", facts.get("Features", "")).split()
    return "amx_bf16" in flags or "bf16" in flags  # x86, Arm


def cpu_facts() -> dict[str, str]:
    """Returns what Linux says of the CPU, such as "model name" and "flags"; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Returns the context in which the model's forward pass runs."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def matmul_rate(device: torch.device, dtype: torch.dtype, budget: float = 0.3) -> float:
    """Measures the FLOP/s of a matrix product of the size of a transformer's.

    Args:
        device: Where.
        dtype: Of both factors.
        budget: Seconds to spend.
    """
    size = 8192 if device.type == "cuda" else 1024
    return 2 * size**3 / _seconds(device, dtype, size, budget)


def _seconds(device: torch.device, dtype: torch.dtype, size: int, budget: float) -> float:
    """Returns the least time of a square product, measured for `budget` seconds."""
    left = torch.ones(size, size, device=device, dtype=dtype)
    right = torch.ones(size, size, device=device, dtype=dtype)
    synchronize(device)
    _timed(lambda: left @ right, device)  # loads the library, starts the threads
    times = [_timed(lambda: left @ right, device)]
    while sum(times) < budget:
        times.append(_timed(lambda: left @ right, device))
    return min(times)


def _timed(function: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
