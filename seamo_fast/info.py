"""Reports versions, devices, and which implementation of each op runs.

python -m seamo_fast.info
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import torch

from seamo_fast import kernels
from seamo_fast._version import __version__
from seamo_fast.cli import Command, NoSettings, say
from seamo_fast.data.shards.tiff import DALI_DTYPES
from seamo_fast.errors import ConfigError
from seamo_fast.files import cache_folder
from seamo_fast.kernels import _native, _trust
from seamo_fast.training.precision import choose_device, choose_dtype, cpu_facts

COMMAND: Final = Command("info", NoSettings, __doc__)

_NEEDED = ("numpy", "safetensors", "jsonargparse", "tifffile", "matplotlib", "tensorboard")
_OPTIONAL = ("triton", "h5py", "flash-attn", "xformers", "nvidia-dali-cuda130", "timm", "wandb")
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "asimd", "bf16")


def report() -> str:
    """Returns everything a bug report should say about this installation."""
    sections = {
        "versions": _versions(),
        "devices": _devices(),
        "data loaders": _loaders(),
        "paths": _paths(),
    }
    text = [f"{title}\n{_table(rows)}" for title, rows in sections.items()]
    return "\n\n".join([*text, f"operations\n{_indent(kernels.explain_table())}"])


def _versions() -> list[tuple[str, str]]:
    rows = [
        ("seamo_fast", __version__),
        ("python", platform.python_version()),
        ("torch", torch.__version__),
    ]
    rows += [(name, _version(name) or "missing") for name in _NEEDED]
    return rows + [(name, _version(name) or "not installed (optional)") for name in _OPTIONAL]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _loaders() -> list[tuple[str, str]]:
    dali = _version("nvidia-dali-cuda130") or _version("nvidia-dali-cuda120")
    missing = "not installed: pip install 'seamo_fast[dali]'"
    dtypes = ", ".join(DALI_DTYPES)
    return [
        ("torch", "threads: .npy by memory map, TIFF by tifffile"),
        ("dali", f"DALI {dali}: data.loader dali" if dali else missing),
        ("tiff through dali", f"pixel-interleaved {dtypes}, uncompressed, LZW or deflate"),
        ("tiff past dali", "planar, BigTIFF, other dtypes and compressions: by tifffile"),
    ]


def _paths() -> list[tuple[str, str]]:
    try:
        cache = cache_folder()
        said = f"{cache} (SEAMO_FAST_CACHE moves it): {_trust.describe(cache)}"
    except ConfigError as error:
        said = str(error)
    rows = [("package", str(Path(__file__).parent)), ("cache", said)]
    for part in (_native.CPU, _native.CUDA):
        for path, reason in _native.candidates(part):
            said = f"{path}: {_trust.describe(path)}" if path.is_file() else "none"
            rows.append((f"{part} kernels", f"{said}; {reason}" if reason else said))
    return rows


def _devices() -> list[tuple[str, str]]:
    model, flags = _cpu()
    rows = [
        ("cpu", f"{model}, {os.cpu_count()} logical cores, {torch.get_num_threads()} threads"),
        ("cpu instructions", ", ".join(flags) or "unknown"),
    ]
    if not torch.cuda.is_available():
        reason = "torch is built without CUDA" if torch.version.cuda is None else "no usable driver"
        rows.append(("cuda", f"none: {reason}"))
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        rows.append(
            (
                f"cuda:{number}",
                f"{found.name}, sm_{found.major}{found.minor}, "
                f"{found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}",
            )
        )
    device = choose_device("auto")
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    return [*rows, ("chosen", f"{device.type} in {dtype}")]


def _cpu() -> tuple[str, list[str]]:
    facts = cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    model = facts.get("model name") or platform.processor() or platform.machine()
    return model, [flag for flag in _CPU_FLAGS if flag in flags]


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<20}{value}" for name, value in rows)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(lambda _: say(report()), arguments)


if __name__ == "__main__":
    sys.exit(main())
