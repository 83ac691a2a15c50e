"""Jobs in processes: in order, counted, and never far ahead of what is taken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from seamo_fast.data.packing.jobs import count, run_jobs


@dataclass(frozen=True)
class Mark:
    """Leaves a file."""

    folder: Path
    number: int

    def run(self) -> int:
        (self.folder / str(self.number)).touch()
        count(2)
        return self.number


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_and_are_counted(tmp_path: Path, workers: int) -> None:
    counted: list[int] = []
    jobs = [Mark(tmp_path, number) for number in range(12)]
    assert list(run_jobs(jobs, workers, counted.append)) == list(range(12))
    assert sum(counted) == 24


def test_results_do_not_pile_up(tmp_path: Path) -> None:
    results = run_jobs([Mark(tmp_path, number) for number in range(40)], 2)
    assert next(results) == 0
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) <= 1 + 4
    assert list(results) == list(range(1, 40))
