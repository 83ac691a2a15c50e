"""The run folder's lock, and where a run resumes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seamo_fast.errors import ConfigError
from seamo_fast.training.recovery import run_folder


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """Another process that holds the lock of `tmp_path`."""
    ready, done = os.pipe()
    process = os.fork()
    if process == 0:
        with run_folder.locked(tmp_path):
            os.write(done, b".")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    yield process
    os.kill(process, signal.SIGKILL)
    os.close(ready)
    os.close(done)
    try:
        os.waitpid(process, 0)
    except ChildProcessError:
        return


def test_a_folder_in_use_is_refused_with_the_process(holder: int, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=f"is in use by process {holder}; wait for it"),
        run_folder.locked(tmp_path),
    ):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(holder: int, tmp_path: Path) -> None:
    os.kill(holder, signal.SIGKILL)
    os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
    with run_folder.locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"run\.folder .*file/run cannot be written"),
        run_folder.locked(tmp_path / "file" / "run"),
    ):
        pass


def test_starting_over_moves_each_earlier_run_into_a_folder_of_its_own(tmp_path: Path) -> None:
    said: list[str] = []
    say: Callable[[str], None] = said.append
    for number in (1, 2):
        (tmp_path / "metrics.jsonl").write_text(str(number))
        assert run_folder.find_start(tmp_path, "none", say) is None
        assert (tmp_path / f"previous-{number}" / "metrics.jsonl").read_text() == str(number)
    assert run_folder.find_start(tmp_path, "none", say) is None
    assert [message.rpartition("/")[2] for message in said] == ["previous-1", "previous-2"]
