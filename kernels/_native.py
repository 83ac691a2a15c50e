"""The compiled kernels: built by setup.py or ``python -m seamo_fast.build``, loaded at first use.

Compiling needs the torch that will run the result. pip builds in an empty environment, and torch
as a build requirement would be downloaded again into it: several GB, perhaps of another release. So
setup.py compiles where torch can be imported (``pip install --no-build-isolation``), beside this
file. Everywhere else ``python -m seamo_fast.build`` compiles after the installation, into the cache
folder. Importing compiles nothing, and no installation fails because compiling does: the reason is
kept, and ``seamo_fast.kernels.explain()`` says it.

The CPU kernels are an extension module for one torch; the CUDA kernels are a plain library without
torch, see _nvcc.py. Each is known by a fingerprint of its sources and of what it was compiled for.

Environment: SEAMO_FAST_BUILD=auto|none|cpu|cuda (auto: the CPU kernels, and the CUDA kernels where
nvcc, a torch with CUDA, and a GPU or TORCH_CUDA_ARCH_LIST are there), MAX_JOBS, CXX, CFLAGS,
LDFLAGS, CUDA_HOME, SEAMO_FAST_CACHE. This file imports nothing of the package but _compile, _cxx
and _nvcc: setup.py uses it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _cxx, _nvcc
from ._compile import CompileError, Report

VARIABLE = "SEAMO_FAST_BUILD"
CPU, CUDA = "cpu", "cuda"
REMEDY = "run python -m seamo_fast.build"

_HERE = Path(__file__).resolve().parent
_FOLDERS = {CPU: (".", "bindings", "cpu"), CUDA: (".", "cuda")}
_MODULE = "seamo_fast.kernels._C"
_FILES = {CPU: f"_C{sysconfig.get_config_var('EXT_SUFFIX')}", CUDA: "libseamo_cuda.so"}


class BuildError(RuntimeError):
    """Native kernels that were asked for by name could not be compiled."""


def cache_folder(part: str) -> Path:
    """Where ``python -m seamo_fast.build`` puts CPU or CUDA compiled from these sources."""
    root = Path(os.environ.get("SEAMO_FAST_CACHE") or "~/.cache/seamo_fast")
    with suppress(RuntimeError):  # a user without a home
        root = root.expanduser()
    return root / "native" / f"{part}-{fingerprint(part)}"


@functools.cache
def fingerprint(part: str) -> str:
    """Names the sources of a part together with what runs them."""
    digest = hashlib.sha256(f"{platform.machine()}\n".encode())
    if part == CPU:
        import torch

        runs = f"{torch.__version__} {sys.implementation.cache_tag} {_cxx.FLAGS}\n"
        digest.update(runs.encode())
    for folder in _FOLDERS[part]:
        for path in sorted((_cxx.SOURCES / folder).glob("*")):
            if path.is_file():
                digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def find(part: str) -> Path | str:
    """The compiled file of a part, or why there is none."""
    reasons = []
    for folder in (cache_folder(part), _HERE):
        record = _read_record(folder, part)
        if record is None:
            continue
        if record["fingerprint"] != fingerprint(part):
            reasons.append(f"it was compiled from other sources or for another torch: {REMEDY}")
        elif record["failure"]:
            reasons.append(record["failure"])
        else:
            return folder / _FILES[part]
    return reasons[0] if reasons else f"it is not compiled: {REMEDY}"


@functools.cache
def load() -> ModuleType | str:
    """The module of the CPU kernels, or why there is none."""
    path = find(CPU)
    if isinstance(path, str):
        return path
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        return f"{path} is no extension module"
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        return f"it cannot be loaded ({error}): {REMEDY}"
    return module


def _read_record(folder: Path, part: str) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / f"_{part}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(record, dict) and {"fingerprint", "failure"} <= record.keys()
    return record if complete else None


def _write_record(folder: Path, part: str, failure: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"fingerprint": fingerprint(part), "failure": failure}
    partial = folder / f"_{part}.json.{os.getpid()}"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / f"_{part}.json")


def build(report: Report) -> dict[str, str | None]:
    """Compiles what SEAMO_FAST_BUILD asks for into the folders of :func:`cache_folder`.

    Args:
        report: gets a line for each source that is compiled, and what a compiler said if it failed.

    Returns:
        For each part the reason why it was not compiled, None if it was; empty for "none".

    Raises:
        BuildError: SEAMO_FAST_BUILD names kernels that cannot be compiled.
    """
    wanted = _wanted()
    if wanted == "none":
        return {}
    native = cache_folder(CPU).parent
    native.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=native) as name:
        folder = Path(name)
        failures = {CPU: _build_cpu(folder / _FILES[CPU], report)}
        if wanted != CPU:
            failures[CUDA] = _build_cuda(folder / _FILES[CUDA], wanted, report)
        _record(folder, failures, wanted)
        for part in failures:
            _move(folder, cache_folder(part), part)
    load.cache_clear()
    return failures


def _record(folder: Path, failures: dict[str, str | None], wanted: str) -> None:
    for part, failure in failures.items():
        _write_record(folder, part, failure)
    if failures.get(wanted):
        raise BuildError(f"{VARIABLE}={wanted}: {failures[wanted]}")


def _move(source: Path, target: Path, part: str) -> None:
    """Moves a part and its record; the record last, since it says that the part is there.

    A failure, such as that of a machine without a GPU, does not take away what another one made.
    """
    if not (source / _FILES[part]).exists() and (target / _FILES[part]).exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in (_FILES[part], f"_{part}.json"):
        if (source / name).exists():
            (source / name).replace(target / name)


def setup_arguments() -> dict[str, Any]:
    """Arguments of ``setuptools.setup`` that compile what SEAMO_FAST_BUILD asks for."""
    wanted = _wanted()
    if wanted == "none" or (wanted == "auto" and importlib.util.find_spec("torch") is None):
        return {}
    from setuptools import Extension  # type: ignore[import-untyped]

    extension = Extension(_MODULE, [], optional=True)
    return {"ext_modules": [extension], "cmdclass": {"build_ext": _command()}}


def _wanted() -> str:
    wanted = os.environ.get(VARIABLE, "auto").strip().lower() or "auto"
    if wanted not in ("auto", "none", "cpu", "cuda"):
        raise BuildError(f"{VARIABLE} must be one of auto, none, cpu, cuda, but got {wanted!r}")
    return wanted


def _command() -> type:
    from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]

    class BuildNative(build_ext):  # type: ignore[misc]
        """Compiles part by part; records failures, raises those of what was asked for."""

        def run(self) -> None:
            self.failures: dict[str, str | None] = {}
            super().run()
            wanted = _wanted()
            folder = Path(self.get_ext_fullpath(_MODULE)).parent
            if wanted != CPU:
                self.failures[CUDA] = _build_cuda(folder / _FILES[CUDA], wanted, print)
            _record(folder, self.failures, wanted)

        def build_extension(self, extension: Any) -> None:
            out = Path(self.get_ext_fullpath(extension.name))
            self.failures[CPU] = _build_cpu(out, print)

    return BuildNative


def _build_cpu(module: Path, report: Report) -> str | None:
    """Compiles the CPU kernels; why they cannot be compiled, None if they are."""
    try:
        _cxx.build(module, report)
    except CompileError as error:
        return _reason(error, report)
    return None


def _build_cuda(library: Path, wanted: str, report: Report) -> str | None:
    """Compiles the CUDA kernels; why they cannot be compiled, or need not be; None if they are."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    asked = torch.cuda.is_available() or "TORCH_CUDA_ARCH_LIST" in os.environ
    if wanted == "auto" and not asked:
        return f"no GPU is visible: set TORCH_CUDA_ARCH_LIST or {VARIABLE}=cuda, then {REMEDY}"
    try:
        _nvcc.build(library, _nvcc.architectures(), report)
    except CompileError as error:
        return _reason(error, report)
    return None


def _reason(error: CompileError, report: Report) -> str:
    if error.output:
        report(error.output)
    return f"{error}; then {REMEDY}"
