"""Samples, the folder they are written to, and the page cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bench.data.formats import Arrays, make_sample


@pytest.fixture(scope="session")
def samples() -> list[Arrays]:
    """The samples that every contestant stores; the environment says how many and how large."""
    count = int(os.environ.get("SEAMO_FAST_BENCH_SAMPLES", "16"))
    size = int(os.environ.get("SEAMO_FAST_BENCH_SIZE", "264"))
    return [make_sample(index, size) for index in range(count)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each contestant writes its files once."""
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(autouse=True)
def _one_core() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def evict(folder: Path) -> Callable[[], None]:
    """Returns a function that drops the files from the page cache, where the system lets it."""
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("this system cannot drop files from the page cache")

    def drop() -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return drop
