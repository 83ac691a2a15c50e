"""Runs of several ranks, in processes of this machine that are forked from one that has torch."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch

from seamo_fast.training import loop, precision
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.reporting import figures

PATIENCE = 240  # seconds; what hangs shows its stacks before
Act = Callable[[int], None]
_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["seamo_fast.training.loop"])


def run_ranks(
    config: PretrainConfig | list[PretrainConfig], world: int, act: Act | None = None
) -> list[str | None]:
    """Pretrains with so many ranks.

    Args:
        config: Of all ranks, or of each.
        world: Number of ranks.
        act: Called with its number in each rank before the run.

    Returns:
        Each rank's error, None where there was none.
    """
    configs = config if isinstance(config, list) else [config] * world
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results: SimpleQueue[tuple[int, str | None]] = _fork.SimpleQueue()
    processes = [
        _fork.Process(target=_run, args=(configs[rank], rank, world, port, act, results))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, "ranks hang"
    errors = dict(results.get() for _ in processes)
    return [errors[rank] for rank in range(world)]


def _run(
    config: PretrainConfig,
    rank: int,
    world: int,
    port: int,
    act: Act | None,
    results: SimpleQueue[tuple[int, str | None]],
) -> None:
    faulthandler.dump_traceback_later(PATIENCE - 20, exit=True)
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    measure = precision.matmul_rate
    precision.matmul_rate = lambda *given: measure(*given, budget=0.0)
    try:
        if act is None:
            figures.Report.write = lambda *_: None  # type: ignore[method-assign]
        else:
            act(rank)
        loop.pretrain(config)
    except Exception as error:
        results.put((rank, f"{type(error).__name__}: {error}"))
        raise
    results.put((rank, None))


def before_step(step: int, act: Callable[[], Any]) -> None:
    """Calls `act` in this process before the run's step `step` (from 0), and draws no figures."""
    figures.Report.write = lambda *_: None  # type: ignore[method-assign]
    original = loop.Trainer._train_step

    def train_step(self: loop.Trainer, *arguments: Any) -> None:
        if self.step == step:
            act()
        original(self, *arguments)

    loop.Trainer._train_step = train_step  # type: ignore[method-assign]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
