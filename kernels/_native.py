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
LDFLAGS, CUDA_HOME, SEAMO_FAST_CACHE. While it is imported, this file imports nothing of the
package but its neighbours that import nothing of it themselves: setup.py uses it.
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
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _cxx, _nvcc, _trust
from ._compile import CompileError, Report

VARIABLE = "SEAMO_FAST_BUILD"
CPU, CUDA = "cpu", "cuda"
REMEDY = "run python -m seamo_fast.build"

_HERE = Path(__file__).resolve().parent
_FOLDERS = {CPU: (".", "bindings", "cpu"), CUDA: (".", "cuda")}
_MODULE = "seamo_fast.kernels._C"
_FILES = {CPU: f"_C{sysconfig.get_config_var('EXT_SUFFIX')}", CUDA: "libseamo_cuda.so"}


class BuildError(RuntimeError):
    """Native kernels could not be compiled that were asked for, or not be put where they belong."""


def cache_folder(part: str) -> Path:
    """Where ``python -m seamo_fast.build`` puts CPU or CUDA compiled from these sources.

    Raises:
        BuildError: the cache is in the home folder, and there is none.
    """
    from seamo_fast import errors, files

    try:
        return files.cache_folder() / "native" / f"{part}-{fingerprint(part)}"
    except errors.ConfigError as error:
        raise BuildError(str(error)) from error


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
    for path, reason in candidates(part):
        if reason is None:
            return path
        reasons.append(reason)
    return reasons[0] if reasons else f"it is not compiled: {REMEDY}"


def candidates(part: str) -> list[tuple[Path, str | None]]:
    """Where a part may have been compiled, and why it is not loaded from there; None if it can be.

    The best comes first. Places without a trace of it are left out.
    """
    found = []
    try:
        folder = cache_folder(part)
        found.append((folder / _FILES[part], _refusal(folder, part, None)))
    except BuildError as error:
        found.append((Path(), str(error)))
    found.append((_HERE / _FILES[part], _refusal(_HERE, part, Path(__file__))))
    return [(path, reason or None) for path, reason in found if reason is not None]


def _refusal(folder: Path, part: str, like: Path | None) -> str | None:
    """Why a part is not loaded from a folder: empty if it can be, None if it was never there."""
    record_file = folder / f"_{part}.json"
    if not os.access(record_file, os.F_OK):
        return None
    for path in (record_file, folder / _FILES[part]):
        reason = _trust.objection(path, like)
        if reason is not None:
            return f"it is not loaded from where others may write: {reason}, then {REMEDY}"
    record = _read_record(record_file)
    if record is None:
        return None
    if record["fingerprint"] != fingerprint(part):
        return f"it was compiled from other sources or for another torch: {REMEDY}"
    return record["failure"] or ""


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


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not {"fingerprint", "failure"} <= record.keys():
        return None
    return record if isinstance(record["failure"], str | None) else None


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
        BuildError: SEAMO_FAST_BUILD names kernels that cannot be compiled, or others than this user
            and root may write the cache folder.
    """
    wanted = _wanted()
    if wanted == "none":
        return {}
    native = cache_folder(CPU).parent
    _make_own(native)
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
    _make_own(target)
    for name in (_FILES[part], f"_{part}.json"):
        made = source / name
        if made.exists():
            made.chmod(made.stat().st_mode & ~_trust.WRITABLE)
            made.replace(target / name)


def _make_own(folder: Path) -> None:
    """Makes a folder that nobody else may write.

    Raises:
        BuildError: others may write it, or a folder above it.
    """
    reason = _trust.objection(folder)
    if reason is not None:
        raise BuildError(f"nothing is compiled to where others may write: {reason}, then {REMEDY}")
    try:
        _trust.make_folder(folder)
    except OSError as error:
        raise BuildError(f"{folder} cannot be made: {error.strerror}") from error


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
