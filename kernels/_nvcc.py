"""nvcc: where it is, and how it makes the CUDA kernels; the only place that knows its options.

The kernels are plain C functions without torch headers: one library serves every torch. This file
imports nothing of the package but _compile, and not torch: setup.py uses it.

Environment: CUDA_HOME, TORCH_CUDA_ARCH_LIST (such as "8.0;9.0a;10.0+PTX"), MAX_JOBS, NVCC_CCBIN.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ._compile import CompileError, Report, run, run_all

# A100, H100, B200; PTX for all others from the first on
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100", "compute_80")

SOURCES = Path(__file__).resolve().parent.parent / "csrc" / "cuda"

_FLAGS = ("-std=c++17", "-O3", "-lineinfo", "-Xcompiler=-fPIC,-fvisibility=hidden")
_ARCHITECTURE = re.compile(r"(\d+)\.(\d+)([af]?)(\+PTX)?")


@functools.cache
def toolkit() -> Path:
    """The root of the CUDA toolkit: CUDA_HOME, else where the nvcc of PATH says it lies.

    Raises:
        CompileError: there is none, or it lacks headers.
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = Path(home, "bin", "nvcc") if home else shutil.which("nvcc")
    if found is None or not Path(found).exists():
        raise CompileError(f"nvcc was not found {f'in {home}' if home else '(set CUDA_HOME)'}")
    # nvcc may be a script that calls another
    listing = subprocess.run([found, "--dryrun", "none.cu"], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.+?)\s*$", listing, re.MULTILINE)
    root = Path(top[1] if top else Path(found).parents[1]).resolve()
    if not any(root.glob("include/cuda_runtime.h")) and not any(
        root.glob("targets/*/include/cuda_runtime.h")
    ):
        raise CompileError(f"the CUDA toolkit {root} has no cuda_runtime.h: install all of it")
    return root


def sources() -> list[Path]:
    """What the library is made of."""
    return sorted(SOURCES.glob("*.cu"))


def architectures() -> tuple[str, ...]:
    """What TORCH_CUDA_ARCH_LIST names, else ARCHITECTURES.

    Raises:
        CompileError: a word of it is no number such as 9.0a.
    """
    words = re.split(r"[;\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip("; "))
    names = []
    for word in filter(None, words):
        match = _ARCHITECTURE.fullmatch(word)
        if match is None:
            raise CompileError(f"TORCH_CUDA_ARCH_LIST must hold numbers like 9.0a, but has {word}")
        number = "".join(match.group(1, 2, 3))
        names += [f"sm_{number}", *([f"compute_{number}"] if match[4] else [])]
    return tuple(names) or ARCHITECTURES


def command(source: Path, out: Path, architectures: Sequence[str], *flags: str) -> list[str]:
    """The command that compiles one source for some architectures."""
    targets = [
        f"-gencode=arch=compute_{name.partition('_')[2]},code={name}" for name in architectures
    ]
    nvcc = str(toolkit() / "bin" / "nvcc")
    return [nvcc, *_FLAGS, *targets, *flags, str(source), "-o", str(out)]


def cubin(source: Path, architecture: str, out: Path) -> str:
    """Compiles one source for one architecture, such as "sm_90a".

    Returns:
        What ptxas says of each kernel: registers, spills, shared memory.

    Raises:
        CompileError: nvcc refused it.
    """
    return run(command(source, out, [architecture], "-cubin", "-Xptxas=-v"))


def build(out: Path, architectures: Sequence[str], report: Report = lambda line: None) -> None:
    """Makes the shared library ``out`` of all sources; it appears when it is complete.

    Args:
        out: where it goes.
        architectures: such as "sm_90a" or "compute_80".
        report: gets a line for each source that is compiled.

    Raises:
        CompileError: nvcc is missing, or refused a source.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        objects = {path: Path(folder, f"{path.stem}.o") for path in sources()}
        run_all(
            {
                f"cuda/{path.name}": command(path, made, architectures, "-c")
                for path, made in objects.items()
            },
            report,
        )
        library = Path(folder, out.name)
        nvcc = str(toolkit() / "bin" / "nvcc")
        run([nvcc, "-shared", "-cudart=static", *map(str, objects.values()), "-o", str(library)])
        library.replace(out)
