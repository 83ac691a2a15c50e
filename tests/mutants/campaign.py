"""Runs tests on mutants: in a copy of the checkout, each in a process forked from a warm one."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.mutants.faults import Mutant, find, parses
from tests.mutants.reach import (
    PACKAGE,
    SKIPPED,
    Baseline,
    Chosen,
    Imports,
    Recorder,
    chosen,
    is_test,
)

# what a test process imports for seconds, and no mutant changes
WARM = (
    *("torch", "torch._dynamo", "torch.distributed", "torch.utils.data", "numpy", "hypothesis"),
    *("jsonargparse", "safetensors.torch", "yaml", "tifffile", "imagecodecs", "tqdm", "h5py"),
    *("matplotlib.pyplot", "torch.utils.tensorboard", "triton"),
)
STARTING = 60.0  # seconds that collecting tests may take on a busy machine
SLOWER = 3.0  # times its usual duration after which a test hangs
BASELINE = 900.0  # seconds that one file's tests may take
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--durations=0", "-W", "ignore")


class Verdict(NamedTuple):
    """How a mutant ended.

    Attributes:
        status: "killed", "timeout", "survived", "untested" (no test reaches it) or "equivalent".
        by: The test that failed, or why it is equivalent.
        seconds: That it took.
        tests: How many tests were chosen.
        digest: Of the file without the fault.
    """

    status: str
    by: str
    seconds: float
    tests: int
    digest: str


class Task(NamedTuple):
    """A process to be forked: what it runs, and after how many seconds it hangs."""

    run: Callable[[], dict[str, Any]]
    limit: float


def sample(root: Path, paths: Sequence[str], number: int, seed: int) -> list[Mutant]:
    """Draws mutants, in turn from every file, and there in turn from every kind of fault.

    A file's draw depends on the seed and the file alone.
    """
    drawn = []
    for path in paths:
        source = (root / path).read_bytes()
        rng = random.Random(f"{seed} {path}")
        drawn.append(iter(_mixed(find(path, source), source, rng)))
    random.Random(seed).shuffle(drawn)
    mutants: list[Mutant] = []
    while drawn and len(mutants) < number:
        for each in list(drawn):
            mutant = next(each, None)
            if mutant is None:
                drawn.remove(each)
            else:
                mutants.append(mutant)
    return mutants[:number]


def _mixed(mutants: list[Mutant], source: bytes, rng: random.Random) -> Iterator[Mutant]:
    kinds: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        kinds.setdefault(mutant.kind, []).append(mutant)
    for each in kinds.values():
        rng.shuffle(each)
    while kinds:
        kind = rng.choice(sorted(kinds))
        mutant = kinds[kind].pop()
        if not kinds[kind]:
            del kinds[kind]
        if parses(mutant.apply(source)):
            yield mutant


class Copy:
    """A copy of the checkout whose package is imported before any installed one.

    Args:
        root: The checkout.
        folder: Where to put it; must not exist.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder.resolve()
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target)
        # the editable install maps these two; without it they are folders of the package
        for name in ("kernels", "csrc"):
            (self.folder / PACKAGE / name).symlink_to(f"../{name}")

    @contextmanager
    def fault(self, mutant: Mutant) -> Iterator[str]:
        """Puts a fault into its file, whose digest is given, and takes it out again."""
        file = self.folder / mutant.path
        source, times = file.read_bytes(), file.stat()
        try:
            file.write_bytes(mutant.apply(source))
            # compiled files are known by the second of this time and by the size
            os.utime(file, (times.st_atime, times.st_mtime + 1000 + random.random() * 1e6))
            yield hashlib.sha256(source).hexdigest()[:16]
        finally:
            file.write_bytes(source)
            os.utime(file, (times.st_atime, times.st_mtime))

    def enter(self) -> None:
        """Makes this process, a forked one, import from the copy."""
        os.chdir(self.folder)
        for name in [name for name in sys.modules if name.split(".")[0] in (PACKAGE, "tests")]:
            del sys.modules[name]
        sys.meta_path[:] = [
            finder
            for finder in sys.meta_path
            if "__editable__" not in getattr(finder, "__module__", "")
        ]
        here = str(Path(__file__).resolve().parents[2])
        sys.path[:] = [str(self.folder), *(p for p in sys.path if p not in ("", ".", here))]
        os.environ["PYTHONPATH"] = str(self.folder)


def warm_up() -> None:
    """Imports what every test process needs; one thread each, kernels of Triton interpreted."""
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg")
    import torch

    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    for name in WARM:
        with suppress(ImportError):
            importlib.import_module(name)


def forked(copy: Copy, task: Task) -> dict[str, Any] | None:
    """Runs a task in a forked process within the copy; None if it hung or died."""
    answer = copy.folder.with_name(f"{copy.folder.name}.answer")
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _serve(copy, task, answer)
    deadline = time.monotonic() + task.limit
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.02)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return {"hung": True}
    with suppress(ProcessLookupError):  # what the tests left running
        os.killpg(child, signal.SIGKILL)
    return json.loads(answer.read_text()) if answer.exists() else None


def _serve(copy: Copy, task: Task, answer: Path) -> None:
    """The forked process; never returns."""
    code = 1
    try:
        os.setsid()
        log = os.open(answer.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        copy.enter()
        answer.write_text(json.dumps(task.run()))
        code = 0
    except BaseException:  # noqa: BLE001 (a forked process must not return)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Campaign:
    """Tries mutants in one copy, and remembers what it found.

    Args:
        copy: Of the checkout.
        store: A folder for what is remembered between campaigns.
        files: Test files a mutant is tried on.
        limit: Seconds of tests a mutant is tried on.
    """

    def __init__(self, copy: Copy, store: Path, files: int, limit: float) -> None:
        self._copy = copy
        self._store = store
        self._files = files
        self._limit = limit
        self._imports = Imports(copy.folder)
        self._sources = _digest(
            copy.folder, (f for f in self._imports.files if not f.startswith("tests/"))
        )
        self._known: dict[str, Baseline] = {}
        store.mkdir(parents=True, exist_ok=True)

    def compile(self) -> None:
        """Leaves compiled files in the copy, which all later processes read."""
        tests = [f for f in self._imports.files if is_test(f) and not f.startswith(SKIPPED)]
        options = [option for option in OPTIONS if option != "-x"]
        forked(self._copy, Task(lambda: {"code": _collect([*options, *tests])}, BASELINE))

    def check(self, paths: Iterable[str]) -> None:
        """Raises RuntimeError unless faults in the copy are what the tests import."""
        first = {path.split("/")[0]: path for path in sorted(paths, reverse=True)}
        for path in first.values():
            broken = Mutant(path, "", 0, "", "broken", 0, 0, 0, "\nraise RuntimeError('mutant')\n")
            source = (self._copy.folder / path).read_bytes()
            broken = broken._replace(begin=len(source), end=len(source))
            with self._copy.fault(broken):
                file = self._imports.tests_of(path)[0]
                found = forked(self._copy, Task(lambda file=file: _run([file], []), 300.0))
            if found is None or found["code"] == 0:
                raise RuntimeError(f"a fault in {path} is not seen: another copy is imported")

    def tests(self, file: str) -> Baseline:
        """Returns what the tests of a file do without a fault; measured once."""
        if file not in self._known:
            digest = _digest(self._copy.folder, [file])
            kept = self._store / f"{file.replace('/', '.')}-{self._sources}-{digest}.json"
            if not kept.exists():
                for old in self._store.glob(f"{file.replace('/', '.')}-*.json"):
                    old.unlink()
                kept.write_text(json.dumps(self._measure(file)))
            self._known[file] = Baseline(**json.loads(kept.read_text()))
        return self._known[file]

    def _measure(self, file: str) -> dict[str, Any]:
        folder = self._copy.folder

        def run() -> dict[str, Any]:
            recorder = Recorder(folder)
            options = [option for option in OPTIONS if option != "-x"]
            pytest.main([*options, file], plugins=[recorder])
            return recorder.result()._asdict()

        found = forked(self._copy, Task(run, BASELINE))
        if found is None or "hung" in found:
            return {"seconds": {}, "calls": {}, "shared": []}
        return found

    def _choose(self, mutant: Mutant) -> tuple[list[str], list[str], float]:
        """Returns files, tests and their seconds; looks further while none calls the function."""
        function = f"{mutant.path}:{mutant.first}"
        known: dict[str, Baseline] = {}
        called = False
        for file in self._imports.tests_of(mutant.path):
            if called and len(known) >= self._files:
                break
            known[file] = self.tests(file)
            called = called or known[file].call(mutant.path, mutant.first)
        names, usual = chosen(function, mutant.path, known.values(), self._limit)
        files = {name.partition("::")[0] for name in names}
        return [file for file in known if file in files], names, usual

    def judge(self, mutant: Mutant) -> Verdict:
        """Tries a mutant."""
        files, names, usual = self._choose(mutant)
        began = time.monotonic()
        with self._copy.fault(mutant) as digest:
            task = Task(lambda: _run(files, names), STARTING + SLOWER * usual)
            found = forked(self._copy, task) if names else {"code": 5, "by": ""}
        seconds = round(time.monotonic() - began, 1)
        if found is None:
            return Verdict("killed", "the process died", seconds, len(names), digest)
        if "hung" in found:
            return Verdict("timeout", "", seconds, len(names), digest)
        status = {0: "survived", 5: "untested"}.get(found["code"], "killed")
        return Verdict(status, found["by"], seconds, len(names), digest)


def _collect(arguments: list[str]) -> int:
    return int(pytest.main(["--collect-only", *arguments]))


def _run(files: list[str], names: Sequence[str]) -> dict[str, Any]:
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    code, plugin = 0, Chosen(names)
    for file in files:  # one by one: most mutants need not collect more than one
        code = int(pytest.main([*OPTIONS, file], plugins=[plugin] if names else []))
        if code:
            break
    return {"code": code, "by": plugin.failed or ("at import" if code else "")}


def _digest(root: Path, files: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.encode() + (root / file).read_bytes())
    return digest.hexdigest()[:16]
