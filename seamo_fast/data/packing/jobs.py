"""Runs jobs in processes, in order, with a count of what is done and a clean end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from seamo_fast.errors import DataError

Result = TypeVar("Result", covariant=True)
Tick = Callable[[int], object]
_INTERVAL: Final = 0.2  # seconds between two looks at the count
_AHEAD: Final = 2  # jobs a process may be ahead of what was taken


class Job(Protocol[Result]):
    """A picklable piece of work."""

    def run(self) -> Result:
        """Does it; calls `count` now and then."""
        ...


class _Counter:
    """What this process counts to: the caller itself, or a number shared with it."""

    shared: Any = None
    tick: Tick | None = None


def count(done: int = 1) -> None:
    """Says that so many more pieces of a job are done."""
    if _Counter.shared is not None:
        with _Counter.shared.get_lock():
            _Counter.shared.value += done
    elif _Counter.tick is not None:
        _Counter.tick(done)


def run_jobs(
    jobs: Sequence[Job[Result]], workers: int, tick: Tick = lambda done: None
) -> Iterator[Result]:
    """Yields the results of jobs in their order.

    Args:
        jobs: What to do.
        workers: Processes; with one, or one job, everything happens in this process.
        tick: Called with the number of pieces that were counted since the last call.

    Raises:
        DataError: A process died.
    """
    if workers == 1 or len(jobs) <= 1:
        _Counter.tick = tick
        try:
            for job in jobs:
                yield job.run()
        finally:
            _Counter.tick = None
        return
    context = multiprocessing.get_context("spawn")
    shared = context.Value("q", 0)
    size = min(workers, len(jobs))
    with ProcessPoolExecutor(size, context, _start, (shared,)) as pool:
        try:
            yield from _results(_submitted(pool, jobs), _AHEAD * size, shared, tick)
        except BrokenProcessPool:
            raise DataError(
                "a process died, most often for lack of memory; run the same command again with "
                "fewer workers (finished shards are kept)"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, jobs: Sequence[Job[Result]]) -> Iterator[Future[Result]]:
    for job in jobs:
        with _interrupts_held():
            future = pool.submit(job.run)
        yield future


def _results(
    futures: Iterator[Future[Result]], most: int, shared: Any, tick: Tick
) -> Iterator[Result]:
    """Yields results in order; no more than `most` jobs are begun or done and not yet yielded."""
    pending = deque(islice(futures, most))
    seen = 0
    while pending:
        while True:
            done = wait([pending[0]], timeout=_INTERVAL).done
            if shared.value > seen:
                tick(shared.value - seen)
                seen = shared.value
            if done:
                break
        yield pending.popleft().result()
        pending.extend(islice(futures, 1))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Makes processes that start inside ignore Ctrl-C until `_start` runs in them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _start(shared: Any) -> None:
    """Lets Ctrl-C, or the end of the main process, end a worker without a traceback."""
    _Counter.shared = shared
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    # A worker that outlives a killed main process would write beside the run that resumes.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
