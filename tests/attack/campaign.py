"""Draws inputs by number, and tries them in some processes at a time."""

from __future__ import annotations

import logging
import os
import shutil
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.attack.ground import Ground
from tests.attack.isolate import Attack, isolate
from tests.attack.kinds import KINDS


class Result(NamedTuple):
    """How one input ended; see `isolate.Outcome`."""

    number: int
    kind: str
    what: str
    verdict: str
    text: str
    seconds: float
    peak: int


def prepare(folder: Path) -> Ground:
    """Makes what all inputs are made from, and imports what the doors need."""
    folder.mkdir(parents=True, exist_ok=True)
    before = logging.root.manager.disable
    logging.disable()
    try:
        ground = Ground(folder)
        ground.make()
    finally:
        logging.disable(before)
    return ground


def kind_of(kinds: Sequence[str], number: int) -> str:
    """Returns the kind of an input: first what is known, once; then each as often as it weighs."""
    once = [kind for kind in kinds if KINDS[kind].weight == 0]
    turn = [kind for kind in kinds for _ in range(KINDS[kind].weight)]
    if number < len(once) or not turn:
        return once[number % len(once)]
    return turn[number * 7919 % len(turn)]


def draw(ground: Ground, home: Path, kind: str, seed: int, number: int) -> Attack:
    """Makes input `number`, which follows from the seed, in the folder `home`."""
    rng = np.random.default_rng([seed, number, zlib.crc32(kind.encode())])
    home.mkdir(parents=True)
    os.chdir(home)
    return KINDS[kind].make(rng, ground, home)


def attempt(ground: Ground, folder: Path, kind: str, seed: int, number: int) -> Result:
    """Tries one input in a folder of its own, which is removed."""
    home = folder / f"{number:05d}"
    what, outcome = isolate(partial(draw, ground, home, kind, seed, number))
    shutil.rmtree(home, ignore_errors=True)
    return Result(number, kind, what, *outcome)


def attack(
    ground: Ground,
    folder: Path,
    kinds: Sequence[str],
    seed: int,
    numbers: Sequence[int],
    jobs: int,
    show: Callable[[Result], None],
) -> list[Result]:
    """Tries the inputs of these numbers, some at a time; returns how each ended."""
    pipes, children = [], []
    for job in range(min(jobs, len(numbers))):
        receiver, sender = Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            try:
                for number in numbers[job::jobs]:
                    kind = kind_of(kinds, number)
                    sender.send(attempt(ground, folder, kind, seed, number))
            except BaseException:  # noqa: BLE001 (a forked process must not return)
                traceback.print_exc()
            finally:
                os._exit(0)
        sender.close()
        children.append(child)
        pipes.append(receiver)
    results = list(_gather(pipes, show))
    for child in children:
        os.waitpid(child, 0)
    if len(results) != len(numbers):
        raise RuntimeError(f"{len(results)} results of {len(numbers)} inputs")
    return sorted(results)


def _gather(pipes: list[Connection], show: Callable[[Result], None]) -> Iterator[Result]:
    """Yields what the processes send, as it comes."""
    while pipes:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)
            try:
                result = pipe.recv()
            except EOFError:
                pipes.remove(pipe)
                continue
            show(result)
            yield result
