"""Which tests a mutant is tried on: found by imports and names, then by what each test calls."""

from __future__ import annotations

import ast
import heapq
import sys
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest

SKIPPED = ("tests/drill/", "tests/bench/", "tests/cuda_on_host/", "tests/mutants/")
SKIPPED_FILES = ("tests/test_packaging.py", "tests/data/packing/test_pack_kills.py")
PACKAGE = "seamo_fast"


class Baseline(NamedTuple):
    """What the tests of one file do without a fault.

    Attributes:
        seconds: For each test that passes how long it takes.
        calls: For each of them "path:line" of the functions that it calls.
        shared: The same of fixtures that several tests share.
    """

    seconds: dict[str, float]
    calls: dict[str, list[str]]
    shared: list[str]

    def call(self, path: str, first: int) -> bool:
        """Returns whether any calls the function of that file on that line, or any for line 0."""
        called = {call for calls in (self.shared, *self.calls.values()) for call in calls}
        if first:
            return f"{path}:{first}" in called
        return any(call.rpartition(":")[0] == path for call in called)


class Imports:
    """The import graph of the package and its tests, by file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        files = [*root.glob(f"{PACKAGE}/**/*.py"), *root.glob("kernels/**/*.py")]
        files += root.glob("tests/**/*.py")
        self.files = sorted(file.relative_to(root).as_posix() for file in files)
        self._known = {_module(file): file for file in self.files}
        self._of = cache(self._imported)

    def tests_of(self, path: str) -> list[str]:
        """Returns all test files that reach a file by imports, the most likely to notice first.

        First the test file of its name, then those that import it, then those farther away; of
        equals those in the folder that mirrors its own.
        """
        ranks = []
        for file in self.files:
            if not is_test(file) or file.startswith(SKIPPED):
                continue
            distance = self._distance(file, path)
            if distance is not None and file not in SKIPPED_FILES:
                mirrors = _mirrors(file, path)
                ranks.append((distance - 2 * mirrors, -mirrors, file))
        return [file for *_, file in sorted(ranks)]

    def _distance(self, start: str, goal: str) -> float | None:
        waiting, known = [(0.0, start)], set()
        while waiting:
            steps, file = heapq.heappop(waiting)
            if file == goal:
                return steps
            if file not in known:
                known.add(file)
                # a package's __init__ only passes names on
                step = 0.5 if file.endswith("__init__.py") else 1
                for other in self._of(file):
                    heapq.heappush(waiting, (steps + step, other))
        return None

    def _imported(self, file: str) -> frozenset[str]:
        found = set()
        if file.startswith("kernels/") and file.endswith("/__init__.py"):
            folder = _module(file)  # backends are imported by name when they are wanted
            found.update(name for name in self._known if name.startswith(f"{folder}."))
        for node in ast.walk(ast.parse((self._root / file).read_bytes())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in self._known else node.module)
        return frozenset(self._known[name] for name in found if name in self._known)


def is_test(file: str) -> bool:
    """Returns whether a file of the repository holds tests."""
    return file.rpartition("/")[2].startswith("test_")


def _module(file: str) -> str:
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"{PACKAGE}.{name}" if name.split(".")[0] == "kernels" else name


def _mirrors(test: str, path: str) -> float:
    """Returns 1 if the test file has the file's name, 1/2 if it is only in the mirrored folder."""
    folder, _, name = path.removeprefix(f"{PACKAGE}/").rpartition("/")
    stem = name.removesuffix(".py").strip("_")
    here, _, file = test.removeprefix("tests/").rpartition("/")
    if stem in ("init", "reference") and folder:
        stem = folder.rpartition("/")[2]
    named = stem in file.removeprefix("test_")
    return (named + (here == folder or folder.startswith(f"{here}/"))) / 2


def chosen(
    function: str, path: str, tests: Iterable[Baseline], limit: float
) -> tuple[list[str], float]:
    """Returns the tests to run for a fault, quick ones first, and their seconds.

    Args:
        function: "path:line" of the function that has the fault; line 0 is outside of functions.
        path: The file that has the fault.
        tests: Of the files to look in.
        limit: Seconds after which no further test is taken.
    """
    direct: dict[str, float] = {}
    fallback: dict[str, float] = {}
    for each in tests:
        shared = set(each.shared)
        for name, seconds in each.seconds.items():
            calls = shared.union(each.calls[name])
            if function in calls:
                direct[name] = seconds
            if any(call.rpartition(":")[0] == path for call in calls):
                fallback[name] = seconds
        if not fallback:
            fallback.update(each.seconds)
    names, total = [], 0.0
    for name, seconds in sorted((direct or fallback).items(), key=lambda item: item[1]):
        if names and total + seconds > limit:
            break
        names.append(name)
        total += seconds
    return names, total


class Recorder:
    """A pytest plugin that records which functions each test calls, and how long it takes."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._tests = f"{root}/tests/"
        self._calls: dict[str, list[str]] = {}
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._shared: set[str] = set()
        self._bucket: set[str] = set()
        self._names: dict[int, tuple[CodeType, str]] = {}  # holds the code, so ids stay unique

    def result(self) -> Baseline:
        """Returns what was recorded."""
        passed = {name: s for name, s in self._seconds.items() if name not in self._failed}
        calls = {name: self._calls[name] for name in passed}
        return Baseline(passed, calls, sorted(self._shared - {""}))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Follows one test."""
        self._bucket = set()
        began = time.perf_counter()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self._seconds[item.nodeid] = time.perf_counter() - began
            self._calls[item.nodeid] = sorted(self._bucket - {""})

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Keeps apart what a fixture calls for several tests."""
        if fixturedef.scope == "function":
            return (yield)
        outer, self._bucket = self._bucket, self._shared
        try:
            return (yield)
        finally:
            self._bucket = outer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Leaves out what does not pass."""
        if not report.passed:
            self._failed.add(report.nodeid)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        known = self._names.get(id(code))
        if known is None:
            known = self._names[id(code)] = (code, self._name(code))
        self._bucket.add(known[1])

    def _name(self, code: CodeType) -> str:
        file = code.co_filename
        if not file.startswith(self._root) or file.startswith(self._tests):
            return ""
        path = file[len(self._root) + 1 :].removeprefix(f"{PACKAGE}/kernels/")
        if len(path) + len(f"{PACKAGE}/kernels/") == len(file) - len(self._root) - 1:
            path = f"kernels/{path}"
        return f"{path}:{code.co_firstlineno}"


class Chosen:
    """A pytest plugin that runs the named tests in this order, and notes the first that fails."""

    def __init__(self, names: Sequence[str]) -> None:
        self._place = {name: place for place, name in enumerate(names)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves out the other tests of the files."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place),
            key=lambda item: self._place[item.nodeid],
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid
