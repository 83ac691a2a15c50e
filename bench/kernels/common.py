"""What the kernel benchmarks share: model sizes, what this machine can do, and paired timing.

``pytest bench/kernels`` runs them. Every test first checks that its contestant agrees with ours,
then times the two in turn, and records for the contestant: ``ratio`` (its median time over ours of
the same rounds), GFLOP/s and GB/s with their shares of the machine's measured rates, and the peak
memory beyond what was allocated before the call.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

# width and heads of the models; the batch keeps a round well under a second
SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
BATCH, SEASONS, MODALITIES, TOKENS = 8, 4, 2, 64

_SECONDS = 2.0
_ROUNDS = (7, 200)


class Work(NamedTuple):
    """What a call has to do at least."""

    operations: float  # floating-point, multiply-add counts as two
    bytes: float  # inputs read once and outputs written once


def device() -> str:
    """The device that the benchmarks run on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def clock(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    _wait()
    start = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@functools.cache
def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product, the best of some."""
    size = 2048 if device() == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device()).to(dtype) for _ in range(2))
    return 2 * size**3 / min(clock(lambda: a @ b) for _ in range(10))


@functools.cache
def copy_rate() -> float:
    """Bytes a second, read and written, of copying 256 MiB, the best of some."""
    source = torch.zeros(2**26, device=device())
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(clock(lambda: target.copy_(source)) for _ in range(10))


def peak_extra_memory(function: Callable[[], object]) -> int | None:
    """Bytes a call holds at most beyond what was held before; None where it cannot be told."""
    gc.collect()
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    try:
        # memory that was freed but kept would hide what the call takes
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        function()
        return _status("VmHWM") - before
    except (OSError, AttributeError):
        return None


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def assert_agree(results: dict[str, tuple[Tensor, ...]], tolerance: float) -> None:
    """Raises AssertionError unless the results of all contestants are those of the first."""
    (_, expected), *others = results.items()
    for name, actual in others:
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(
                a.float(), b.float(), rtol=tolerance, atol=tolerance, msg=f"{name} differs"
            )


def race(
    benchmark: Any, contestant: Callable[[], object], ours: Callable[[], object], work: Work
) -> None:
    """Times the contestant, with a call of ours before each call of it."""
    once = max(clock(contestant), clock(ours), clock(contestant))
    rounds = max(_ROUNDS[0], min(_ROUNDS[1], int(_SECONDS / once / 2)))
    partner: list[float] = []
    memory = peak_extra_memory(contestant)
    benchmark.pedantic(
        lambda: clock(contestant),
        setup=lambda: partner.append(clock(ours)),
        rounds=rounds,
        warmup_rounds=2,
    )
    if benchmark.stats is None:  # --benchmark-disable
        return
    median = benchmark.stats.stats.median
    rate = matmul_rate(torch.float32)
    benchmark.extra_info |= {
        "ratio": median / statistics.median(partner[-rounds:]),
        "GFLOP/s": work.operations / median / 1e9,
        "of matmul": work.operations / median / rate,
        "GB/s": work.bytes / median / 1e9,
        "of copy": work.bytes / median / copy_rate(),
        "extra MiB": None if memory is None else memory / 2**20,
        "threads": torch.get_num_threads(),
    }
