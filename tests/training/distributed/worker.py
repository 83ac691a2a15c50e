"""Runs of several ranks, in processes of this machine that are forked from one that has torch.

The processes stay: the next run finds all imports done and the caches of sharded tensors full. One
that had an error is replaced.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import pytest
import torch

from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.run import finetune
from seamo_fast.training import loop, precision
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.reporting import figures
from tests.forkserver import FORK

PATIENCE: Final = 240  # seconds; what hangs shows its stacks before
Act = Callable[[pytest.MonkeyPatch, int], None]
Config = PretrainConfig | FinetuneConfig


@dataclass(frozen=True)
class Job:
    """A run as one rank sees it; `port` is where rank 0 waits for the others."""

    config: Config
    rank: int
    world: int
    port: int
    act: Act | None
    draw: bool


class Worker:
    """A process that does one job after the other."""

    def __init__(self) -> None:
        self._connection, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        self._connection.send(job)

    def error(self) -> str | None:
        """Returns the error of the job, None if there was none; the process ends if it hangs."""
        if not self._connection.poll(PATIENCE):
            self._process.kill()
            pytest.fail("a rank hangs")
        error: str | None = self._connection.recv()
        return error


_workers: list[Worker] = []


def run_ranks(
    config: Config | Sequence[Config],
    world: int,
    act: Act | None = None,
    *,
    draw: bool = False,
) -> list[str | None]:
    """Pretrains or finetunes with so many ranks.

    Args:
        config: Of all ranks, or of each.
        world: Number of ranks.
        act: Called before the run in each rank with its number; what it patches is undone after.
        draw: Draw figures, which takes longer than the training.

    Returns:
        Each rank's error, None where there was none.
    """
    configs = config if isinstance(config, Sequence) else [config] * world
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hired = [_workers.pop() if _workers else Worker() for _ in range(world)]
    for rank, worker in enumerate(hired):
        worker.begin(Job(configs[rank], rank, world, port, act, draw))
    errors = [worker.error() for worker in hired]
    if not any(errors):
        _workers.extend(reversed(hired))
    return errors


def _work(connection: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(PATIENCE - 20, exit=True)
        try:
            _run(job)
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")
            raise
        connection.send(None)
        faulthandler.cancel_dump_traceback_later()


def _run(job: Job) -> None:
    measure = precision.matmul_rate
    environment = {
        "RANK": job.rank,
        "LOCAL_RANK": job.rank,
        "WORLD_SIZE": job.world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": job.port,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, str(value))
        patch.setattr(precision, "matmul_rate", lambda *given: measure(*given, budget=0.0))
        if not job.draw:
            patch.setattr(figures.Figures, "write", lambda *_: None)
        if job.act is not None:
            job.act(patch, job.rank)
        if isinstance(job.config, FinetuneConfig):
            finetune(job.config)
        else:
            loop.pretrain(job.config)


def before_step(patch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Calls `act` in this process before the run's step `step` (from 0)."""
    original = loop.Trainer._train_step

    def train_step(self: loop.Trainer, *arguments: Any) -> None:
        if self.state.step == step:
            act()
        original(self, *arguments)

    patch.setattr(loop.Trainer, "_train_step", train_step)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def act_compile(patch: pytest.MonkeyPatch, here: int) -> None:
    """Lets compiled modules be captured and not translated to C++."""
    compile_module = torch.nn.Module.compile
    # inductor takes minutes for what this test is about
    patch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **given: compile_module(self, backend="aot_eager", **given),
    )
