"""What every test shares: where real tiles are, one thread, fixed seeds, and a cache of its own."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from seamo_fast.kernels import _native

# before anything imports triton: without a GPU its kernels run in its interpreter
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# the same examples each time; --hypothesis-profile=default (make test-all) draws new ones
settings.register_profile(
    "repeatable",
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],  # which says only that the machine is busy
)
settings.load_profile("repeatable")

Shut = Callable[[Path], AbstractContextManager[None]]
REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """One thread: sums come out the same everywhere, and tests do not fight over cores.

    Ctrl-C interrupts as in a terminal: what a shell starts in the background ignores it.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Makes a test's random numbers independent of the tests before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global generator is what third parties draw from)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps demo data out of the user's cache; made once a session. Compiled kernels stay."""
    loaded = _native.load()
    if os.environ.get("SEAMO_FAST_TEST_REQUIRE") == _native.CPU and isinstance(loaded, str):
        pytest.exit(f"the C++ kernels are required, but {loaded}", returncode=1)
    native = _native.cache_folder(_native.CPU).parent.resolve()
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        (cache / "native").symlink_to(native)
        patch.setenv("SEAMO_FAST_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real tiles, or a skip that says how to name one."""
    folder = Path(
        os.environ.get("SEAMO_FAST_TEST_DATA", REPOSITORY.parent / "shared" / "data")
    ).resolve()
    if not folder.is_dir():
        pytest.skip(f"real tiles: no folder {folder} (set SEAMO_FAST_TEST_DATA)")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a tmpfs of so many KiB where the test may mount, else skips."""
    disk = tmp_path / "disk"

    def mount(kibibytes: int) -> Path:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(disk)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small tmpfs needs the right to mount: {error}")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def shut() -> Shut:
    """A function that shuts a file or folder to this process for a body, also if it is root's."""
    root = os.geteuid() == 0

    @contextmanager
    def shut(path: Path) -> Iterator[None]:
        above = [each for each in path.parents if root and not each.stat().st_mode & 1]
        modes = {each: stat.S_IMODE(each.stat().st_mode) for each in (path, *above)}
        for each in above:
            each.chmod(modes[each] | 0o055)  # pytest keeps its folders to itself
        path.chmod(0)
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)
            for each, mode in modes.items():
                each.chmod(mode)

    return shut


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """`os.umask`, whose effect ends with the test."""
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.fixture
def order_on_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records in which order files and folders are synced ("sync NAME") and renamed to a name."""
    order: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def note_sync(descriptor: int) -> None:
        order.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        order.append(f"rename {target.name}")
        return rename(path, target)

    def note_replace(path: Path, target: Path) -> Path:
        order.append(f"rename {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(Path, "replace", note_replace)
    return order
