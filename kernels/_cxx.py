"""The C++ compiler: how it makes the module of the CPU kernels; the only place with its options.

Imports nothing of the package but _compile: setup.py uses it.

Environment: CXX, CFLAGS, CXXFLAGS, LDFLAGS, MAX_JOBS.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sysconfig
import tempfile
from pathlib import Path

from . import _compile

SOURCES = Path(__file__).resolve().parent.parent / "csrc"

_FLAGS = (
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-fwrapv", "-DNDEBUG", "-Wall"),
    "-fopenmp",  # at::parallel_for is a template; at link time torch brings its OpenMP
    *("-fno-math-errno", "-fno-trapping-math"),
    "-Wno-maybe-uninitialized",  # gcc 12 says that of its own AVX-512 intrinsics
    "-Wno-psabi",  # no vector crosses a file
)
# bindings compute nothing, and half of the time that they compile is spent on optimizing headers
_OPTIMIZE = {"cpu": "-O3", "bindings": "-O1"}
FLAGS = (*_FLAGS, str(_OPTIMIZE))  # what the result depends on beside the sources

# these take longest: one that starts last would run alone at the end
_FIRST = (
    *("bindings/autograd.cpp", "cpu/gather_patches.cpp", "cpu/tm_attention.cpp"),
    *("bindings/module.cpp", "bindings/torch.cpp", "cpu/norm_pix_loss.cpp"),
)


def build(out: Path, report: _compile.Report) -> None:
    """Makes the extension module ``out`` of all sources; it appears when it is complete.

    Args:
        out: where it goes; its name begins with that of the module.
        report: gets a line for each source that is compiled.

    Raises:
        CompileError: there is no compiler, or it refused a source.
    """
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise _compile.CompileError(
            f"the C++ compiler {compiler[0]} was not found; install one (or set CXX)"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        objects = {path: Path(folder, f"{path.parent.name}_{path.stem}.o") for path in _sources()}
        _compile.run_all(
            {
                _name(path): [*compiler, *_options(path), "-o", str(made)]
                for path, made in objects.items()
            },
            report,
        )
        library = Path(folder, out.name)
        _compile.run([*compiler, *map(str, objects.values()), *_libraries(), "-o", str(library)])
        library.replace(out)


def _sources() -> list[Path]:
    paths = [*SOURCES.glob("bindings/*.cpp"), *SOURCES.glob("cpu/*.cpp")]
    order = {name: place for place, name in enumerate(_FIRST)}
    return sorted(paths, key=lambda path: (order.get(_name(path), len(order)), path))


def _name(source: Path) -> str:
    return f"{source.parent.name}/{source.name}"


def _options(source: Path) -> list[str]:
    options = [*_FLAGS, _OPTIMIZE[source.parent.name]]
    if source.parent.name == "bindings":
        torch = _torch_folder() / "include"
        folders = (torch, torch / "torch/csrc/api/include", sysconfig.get_paths()["include"])
        options += ["-DTORCH_EXTENSION_NAME=_C"]
        for folder in folders:
            options += ["-isystem", str(folder)]
    return [*options, *_environment("CFLAGS", "CXXFLAGS"), "-c", str(source)]


def _libraries() -> list[str]:
    names = ("c10", "torch_cpu", "torch", "torch_python")
    libraries = [f"-l{name}" for name in names]
    return ["-shared", *_environment("LDFLAGS"), f"-L{_torch_folder() / 'lib'}", *libraries]


def _environment(*names: str) -> list[str]:
    return [option for name in names for option in shlex.split(os.environ.get(name, ""))]


def _torch_folder() -> Path:
    import torch

    return Path(torch.__file__).resolve().parent
