"""What the kernel benchmarks share: cases, contestants, what this machine can do, paired timing.

A bench names its cases and its contestants, ours first. Every test first checks that its contestant
agrees with ours, then times the two in turn, and records for the contestant: ``ratio`` (its median
time over ours in the same rounds), GFLOP/s and GB/s with their shares of the machine's measured
rates, and the peak memory beyond what was held before the call.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bench.ops.work import Work
from bench.sizes import POSITIONS, SEASONS, TOKENS
from seamo_fast.model.config import PRESETS, ModelConfig

SIZES = ("tiny", "small", "base")
BRIEF = ("small", "base", "s2l2a", "base B=1", "base B=16")  # labels that run without --full
BATCH = 8  # keeps a round well under a second

FORWARD, BOTH = "forward", "forward+backward"
OURS = "ours"
COMPILED = " compiled"

_SECONDS = 2.0
_MOST_ROUNDS = 200

Function = Callable[[Any], Any]
Results = tuple[Tensor, ...]


class Case(NamedTuple):
    """A call that is timed, with or without its backward pass."""

    size: str  # of the model, or the modality where the model does not matter
    direction: str = FORWARD
    dtype: torch.dtype = torch.float32
    batch: int = BATCH
    tokens: int = TOKENS  # visible ones of a group
    nodata: bool = False

    @property
    def model(self) -> ModelConfig:
        """The preset of that size."""
        return PRESETS[self.size]

    @property
    def label(self) -> str:
        """The size, and in what the case differs from the usual."""
        parts = (
            (self.size, True),
            (str(self.dtype).removeprefix("torch."), self.dtype != torch.float32),
            (f"B={self.batch}", self.batch != BATCH),
            (f"K={self.tokens}", self.tokens != TOKENS),
            ("nodata", self.nodata),
        )
        return " ".join(part for part, said in parts if said)


def whole(function: Function) -> Function:
    """Compiles a contestant as one graph for the shapes it gets."""
    compiled: Function = torch.compile(function, dynamic=False, fullgraph=True)
    return compiled


def _everything(inputs: Any, actual: Results, expected: Results) -> tuple[Results, Results]:
    return actual, expected


def _nothing(case: Case) -> None:
    return None


def _none(inputs: Any) -> Sequence[Tensor]:
    return ()


class Contestant(NamedTuple):
    """A way to the result of an operation."""

    function: Function  # takes the inputs of the bench
    compiled: Callable[[Function], Function] | None = whole  # None: only as it is
    eager: bool = True  # False: only compiled
    grad: str = "grad"  # the input that is the gradient of the result
    yardstick: bool = False  # does less than ours: a bound, not a rival
    # what has to agree of its results (with inputs and results of ours)
    compared: Callable[[Any, Results, Results], tuple[Results, Results]] = _everything
    obstacle: Callable[[Case], str | None] = _nothing  # why it cannot run


@dataclass(frozen=True, eq=False)
class Bench:
    """An operation, its contestants and the cases they meet at."""

    op: Any  # a module of bench.ops, or what else says how much work a call is
    cases: Sequence[Case]
    inputs: Callable[[Case], Any]  # a named tuple
    arguments: Callable[[Any], Any]  # of the inputs: what the module's ``work`` takes
    contestants: dict[str, Contestant]
    brief: Sequence[str] = ()  # the strongest rivals, which alone are raced without --full
    leaves: Sequence[str] = ()  # inputs that get a gradient
    parameters: Callable[[Any], Sequence[Tensor]] = _none  # of the inputs: others that get one
    tolerance: float = 1e-4  # in float32, relative to the root mean square
    least_rounds: int = 7
    table: str = "ops"  # of the report

    @property
    def name(self) -> str:
        """Of the operation."""
        return str(self.op.__name__.rpartition(".")[2])

    def names(self, *, compiled: bool = True) -> list[str]:
        """The contestants, with those that are compiled or without."""
        found = [name for name, entry in self.contestants.items() if entry.eager]
        if compiled:
            entries = self.contestants.items()
            found += [f"{name}{COMPILED}" for name, entry in entries if entry.compiled]
        return found

    def is_brief(self, name: str, case: Case) -> bool:
        """Whether a race runs without --full."""
        way = max((each.direction for each in self.cases), key=len)  # backward too, if there is one
        return name in self.brief and case.direction == way and case.label in BRIEF

    def contestant(self, name: str) -> Contestant:
        """The contestant of that name, in either form."""
        return self.contestants[name.removesuffix(COMPILED)]


def cases(sizes: Sequence[str] = SIZES, directions: Sequence[str] = (FORWARD, BOTH)) -> list[Case]:
    """Each size in float32, and the second or only one in bfloat16 too."""
    pairs = [(size, torch.float32) for size in sizes] + [(sizes[:2][-1], torch.bfloat16)]
    return [Case(size, way, dtype) for (size, dtype), way in itertools.product(pairs, directions)]


def contest(bench: Bench) -> pytest.MarkDecorator:
    """Gives a test every contestant of a bench at every case, as ``name`` and ``case``."""
    return pytest.mark.parametrize(
        ("name", "case"),
        [
            pytest.param(
                name,
                case,
                id=f"{case.label}, {case.direction}, {name}",
                marks=() if bench.is_brief(name, case) else pytest.mark.full,
            )
            for case in bench.cases
            for name in bench.names()
        ],
    )


def device() -> str:
    """The device that the benchmarks run on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def randoms(*shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Normal numbers, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).to(device(), dtype) for shape in shapes]


def permutations(case: Case) -> Tensor:
    """Patch numbers of each image, the visible first, both parts in order; int32 [B, T, N]."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.rand(case.batch, SEASONS, POSITIONS, generator=generator).argsort(-1)
    parts = numbers.split([case.tokens, POSITIONS - case.tokens], dim=-1)
    return torch.cat([part.sort(-1).values for part in parts], dim=-1).to(device(), torch.int32)


@functools.lru_cache(maxsize=1)
def _inputs_of(bench: Bench, case: Case) -> Any:
    return bench.inputs(case)


def caller(bench: Bench, name: str, case: Case) -> Callable[[], Results]:
    """A function that calls a contestant and returns its results and gradients."""
    entry, inputs = bench.contestant(name), _inputs_of(bench, case)
    function = entry.function
    if name.endswith(COMPILED) and entry.compiled is not None:
        # a program of another case would make this one general, thus slower
        torch.compiler.reset()
        function = entry.compiled(function)

    def forward() -> Results:
        with torch.inference_mode():
            out = function(inputs)
        return out if isinstance(out, tuple) else (out,)

    def both() -> Results:
        leaves = {leaf: getattr(inputs, leaf).detach().requires_grad_() for leaf in bench.leaves}
        out = function(inputs._replace(**leaves))
        wanted = [*leaves.values(), *bench.parameters(inputs)]
        grad = getattr(inputs, entry.grad)
        return out.detach(), *torch.autograd.grad(out, wanted, grad, allow_unused=True)

    return forward if case.direction == FORWARD else both


def check(bench: Bench, name: str, case: Case) -> list[Callable[[], Results]]:
    """Compares the contestant with ours; returns both, ready to be called.

    Raises AssertionError unless they agree. Skips the test where the contestant cannot run.
    """
    entry = bench.contestant(name)
    obstacle = entry.obstacle(case)
    if obstacle is not None:
        pytest.skip(obstacle)
    callers = [caller(bench, each, case) for each in (name, OURS)]
    found = entry.compared(_inputs_of(bench, case), *(call() for call in callers))
    tolerance = bench.tolerance if case.dtype == torch.float32 else 5e-2
    for a, b in zip(*found, strict=True):
        a, b = a.float(), b.float()
        scale = float(b.square().mean().sqrt())
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * scale)
    return callers


def race(benchmark: Any, bench: Bench, name: str, case: Case) -> None:
    """Times the contestant, with a call of ours before each call of it."""
    benchmark.group = f"{bench.name}, {case.label}, {case.direction}"
    contestant, ours = check(bench, name, case)
    once = max(clock(contestant), clock(ours), clock(contestant))
    rounds = max(bench.least_rounds, min(_MOST_ROUNDS, int(_SECONDS / once / 2)))
    memory = peak_extra_memory(contestant)
    partner: list[float] = []
    benchmark.pedantic(
        lambda: clock(contestant),
        setup=lambda: partner.append(clock(ours)),
        rounds=rounds,
        warmup_rounds=2,
    )
    if benchmark.stats is None:  # --benchmark-disable
        return
    median = benchmark.stats.stats.median
    arguments = bench.arguments(_inputs_of(bench, case))
    work: Work = bench.op.work(arguments, both=case.direction == BOTH)
    ours_median = statistics.median(partner[-rounds:])
    benchmark.extra_info |= {
        "table": bench.table,
        "op": bench.name,
        "size": case.label,
        "direction": case.direction,
        "contestant": name,
        "yardstick": bench.contestant(name).yardstick,
        "ratio": median / ours_median,
        "ours ms": ours_median * 1e3,
        "GFLOP/s": work.operations / median / 1e9,
        "of matmul": work.operations / median / matmul_rate(case.dtype),
        "GB/s": work.bytes / median / 1e9,
        "of copy": work.bytes / median / copy_rate(),
        "extra MiB": None if memory is None else memory / 2**20,
        "threads": torch.get_num_threads(),
    }


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
    a, b = randoms((size, size), (size, size), dtype=dtype)
    return 2 * size**3 / min(clock(lambda: a @ b) for _ in range(10))


@functools.cache
def copy_rate() -> float:
    """Bytes a second, read and written, of copying 256 MiB, the best of some."""
    source = torch.zeros(2**26, device=device())
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(clock(lambda: target.copy_(source)) for _ in range(10))


def peak_extra_memory(function: Callable[[], object]) -> int | None:
    """Bytes a call holds at most beyond what was held before; None where it cannot be measured."""
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
