"""Contestants in processes of their own: a step for each line read, a line of JSON for each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from seamo_fast.training import precision

Answer = dict[str, float]


class Contestant(Protocol):
    """What is raced, on a device."""

    device: torch.device
    facts: Mapping[str, float]

    def step(self) -> Answer:
        """Makes a step; what it returns is part of the answer, its own `seconds` too."""
        ...


def serve(make: Callable[[], Contestant]) -> None:
    """Answers until the standard input ends: with the facts, then with each step.

    `memory` is the most that was held beyond what importing took.
    """
    before = resident("VmRSS")
    contestant = make()
    _write({"threads": torch.get_num_threads(), **contestant.facts})
    for _ in sys.stdin:
        start = time.perf_counter()
        found = contestant.step()
        precision.synchronize(contestant.device)
        seconds = time.perf_counter() - start
        _write({"seconds": seconds, "memory": resident("VmHWM") - before, **found})


def _write(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def resident(key: str) -> int:
    """Returns VmRSS or VmHWM, the most it has been, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@contextmanager
def started(module: str, *arguments: str) -> Iterator[Callable[[bool], Answer]]:
    """Starts a contestant; what is yielded asks it for a step, or for the facts at first."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send, receive = process.stdin, process.stdout

        def ask(step: bool) -> Answer:
            if step:
                send.write("\n")
                send.flush()
            answer: Answer = json.loads(receive.readline())
            return answer

        yield ask
        send.close()


def race(
    benchmark: Any, *commands: tuple[str, ...], rounds: int, warmup: int
) -> tuple[list[Answer], list[tuple[Answer, ...]]]:
    """Lets contestants make their steps in turn.

    Args:
        benchmark: Times the rounds, warm-up included in what is returned.
        commands: Module and arguments of each contestant.
        rounds: That count.
        warmup: Rounds before them.

    Returns:
        The facts of each contestant, and the answers of each round.
    """
    answers: list[tuple[Answer, ...]] = []
    with ExitStack() as stack:
        contestants = [stack.enter_context(started(*command)) for command in commands]
        facts = [ask(False) for ask in contestants]
        benchmark.pedantic(
            lambda: answers.append(tuple(ask(True) for ask in contestants)),
            rounds=rounds,
            warmup_rounds=warmup,
        )
    return facts, answers
