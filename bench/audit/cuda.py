"""Every CUDA kernel, compiled by nvcc, with what it is launched with.

The objects are those of the shipped library, linked with a CUDA runtime that launches nothing: the
operations are called as at run time, and it says what they would have launched.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.audit.binary import Function, Kernel, cuobjdump, functions, read_function
from bench.audit.cases import Case
from bench.ops import OPS
from seamo_fast.kernels import _nvcc
from seamo_fast.kernels._gpu import _cuda

NOT_LAUNCHED = "not launched"  # configuration of a kernel that no case launches
_RUNTIME = Path(__file__).with_name("recorder.cpp")
_DTYPES = {"__half": "float16", "__nv_bfloat16": "bfloat16", "float": "float32"}


class Launch(NamedTuple):
    """What a kernel is launched with."""

    name: str  # mangled
    threads: int
    shared: int  # bytes of dynamic shared memory


def obstacle() -> str | None:
    """Why the kernels cannot be compiled here; None if they can."""
    try:
        _nvcc.toolkit()
    except _nvcc.CompileError as error:
        return str(error)
    if shutil.which("c++filt") is None:
        return "c++filt was not found: install binutils"
    return None


@functools.cache
def compiler() -> str:
    """The version of nvcc."""
    return _run(_nvcc_path(), "--version").rpartition("release ")[2].partition(",")[0]


class Library:
    """The kernels of some operations, compiled for some targets."""

    def __init__(self, folder: Path, targets: Sequence[str], ops: Sequence[str], jobs: int) -> None:
        """Compiles into a folder, so many files at a time."""
        objects = _compiled(folder, targets, _sources(ops), jobs)
        self._found = {target: _functions(objects, target) for target in targets}
        self._names = _readable(self._found[targets[0]])
        self._library = _linked(folder, objects)
        self._idle = set(self._names)

    def launched(self, cases: Iterable[Case]) -> Iterator[tuple[str, str, str, Kernel]]:
        """Each kernel with its operation, inputs and target, once for each case."""
        with _recorder(self._library) as recorder:
            for case in cases:
                for launch in recorder(case):
                    self._idle.discard(launch.name)
                    name = self._names[launch.name]
                    for target, found in self._found.items():
                        kernel = _launched(name, found[launch.name], target, launch)
                        yield case.op, case.inputs, target, kernel

    def not_launched(self) -> Iterator[tuple[str, str, str, Kernel]]:
        """The kernels that no case has launched so far."""
        for target, found in self._found.items():
            for name in sorted(self._idle):
                binary = read_function(found[name], target, warps=1, shared=0)
                yield "-", "-", target, Kernel(self._names[name], NOT_LAUNCHED, binary)


def _launched(name: str, function: Function, target: str, launch: Launch) -> Kernel:
    shared, warps = function.shared + launch.shared, -(-launch.threads // 32)
    binary = read_function(function, target, warps=warps, shared=shared)
    return Kernel(name, f"threads {launch.threads}", binary)


def _sources(ops: Sequence[str]) -> list[Path]:
    """The files of some operations, and those that belong to none alone."""
    other = tuple(op for op in OPS if op not in ops)
    return [source for source in _nvcc.sources() if not source.stem.startswith(other)]


def _compiled(
    folder: Path, targets: Sequence[str], sources: Sequence[Path], jobs: int
) -> list[Path]:
    """An object file for each source, with code for all targets."""
    exact = {name.rstrip("af"): name for name in _nvcc.ARCHITECTURES}
    architectures = [exact[target] for target in targets]
    objects = [folder / f"{source.stem}.o" for source in sources]
    commands = [
        _nvcc.command(source, path, architectures, "-c")
        for source, path in zip(sources, objects, strict=True)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda command: _run(*command), commands))
    return objects


def _functions(objects: Sequence[Path], target: str) -> dict[str, Function]:
    """The kernels of all files for one target, by mangled name."""
    found: dict[str, Function] = {}
    for path in objects:
        _run(cuobjdump(), "-xelf", target, path.name, folder=path.parent)
        for cubin in path.parent.glob(f"{path.stem}.*{target}*.cubin"):
            found |= functions(cubin.read_bytes(), target)
    return found


def _linked(folder: Path, objects: Sequence[Path]) -> Path:
    """The library, with the runtime that launches nothing."""
    library = folder / "recording.so"
    # -Bsymbolic: torch may have loaded the true runtime
    options = ("-shared", "-cudart=none", "-Xcompiler=-fPIC", "-Xlinker=-Bsymbolic,-z,defs")
    _run(_nvcc_path(), *options, *map(str, objects), str(_RUNTIME), "-o", str(library))
    return library


class _Recorder:
    """Calls operations and says what they launched."""

    def __init__(self) -> None:
        library = _cuda.load()
        if isinstance(library, str):
            raise RuntimeError(library)
        self._launched = library.seamo_launched
        self._launched.restype = ctypes.c_char_p

    def __call__(self, case: Case) -> list[Launch]:
        case.call(importlib.import_module(f"seamo_fast.kernels.{case.op}.cuda_impl"))
        lines = (line.split() for line in self._launched().decode().splitlines())
        launches = [Launch(name, int(threads), int(shared)) for name, threads, shared in lines]
        return list(dict.fromkeys(launches))


@contextmanager
def _recorder(library: Path) -> Iterator[_Recorder]:
    _cuda.use(library)
    try:
        yield _Recorder()
    finally:
        _cuda.use(None)


def _readable(mangled: Iterable[str]) -> dict[str, str]:
    """Names of kernels with their template arguments, without namespaces and parameters."""
    mangled = list(mangled)
    found = {}
    for name, text in zip(mangled, _run("c++filt", *mangled).splitlines(), strict=True):
        plain = re.sub(r"(?:\w+|\(anonymous namespace\))::", "", text)
        match = re.match(r"(?:void )?(\w+?)(?:_kernel)?(<.*?>)?\(", plain)
        assert match is not None, text
        types = re.sub(r"\w+", lambda word: _DTYPES.get(word[0], word[0]), match[2] or "")
        found[name] = match[1] + types
    return found


def _nvcc_path() -> str:
    return str(_nvcc.toolkit() / "bin" / "nvcc")


def _run(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout
