"""Samples, the folder they are written to, and the page cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bench.data.formats import Arrays, make_sample


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds how much is read."""
    group = parser.getgroup("bench/data")
    group.addoption("--bench-samples", type=int, default=16, help="samples of 5.3 MB")
    group.addoption("--bench-size", type=int, default=264, help="pixels of a tile's side at 10 m")


@pytest.fixture(scope="session")
def samples(request: pytest.FixtureRequest) -> list[Arrays]:
    """The samples that every contestant stores."""
    count, size = (request.config.getoption(f"--bench-{name}") for name in ("samples", "size"))
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
