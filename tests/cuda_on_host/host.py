"""Builds CUDA sources for the CPU and runs them under guard: see README.md."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

Mode = Literal["plain", "checked"]

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
KERNELS = REPOSITORY / "csrc" / "cuda"
CACHE = REPOSITORY / "build" / "cuda_on_host"
PADDING = 4096  # bytes on both sides of a guarded tensor
ALIGNMENT = 512  # of what torch allocates on a GPU
POISON = 0xFF  # NaN as any floating type, -1 as any integer

FLAGS = [
    "-std=c++17",
    "-fPIC",
    "-march=native",
    "-fno-strict-aliasing",  # nvcc, too, lets kernels load 128 bits of anything as int4
    "-fno-gnu-unique",  # several libraries in a process keep their own __shared__ variables
    "-Wno-unknown-pragmas",
    f"-ffile-prefix-map={REPOSITORY}/=",
]
MODE_FLAGS: dict[Mode, list[str]] = {
    "plain": ["-O1"],  # compiling takes longer than all kernels do
    "checked": ["-O1", "-g1", "-DCUDA_ON_HOST_CHECKED"],
}
# Only to compile with: the executor itself defines what the instrumented kernels call.
INSTRUMENTED = ["-fsanitize=thread,alignment,bounds", "-Wno-tsan"]


def why_not() -> str | None:
    """Says what this machine lacks to run CUDA sources, for pytest.skip."""
    if platform.machine() not in ("x86_64", "AMD64") or platform.system() != "Linux":
        return "the executor of CUDA sources is written for Linux on x86-64"
    return None if shutil.which("g++") else "needs g++"


@functools.cache
def _fingerprint() -> bytes:
    """What every object depends on: compiler, processor, headers."""
    version = subprocess.run(["g++", "--version"], check=True, capture_output=True).stdout
    processor = next(
        (line for line in Path("/proc/cpuinfo").read_bytes().splitlines() if b"flags" in line), b""
    )
    headers = [*HERE.glob("*.h"), *HERE.glob("include/*.h")]
    return b"".join([version, processor, *(path.read_bytes() for path in sorted(headers))])


def _name(command: Sequence[str], *contents: bytes) -> str:
    digest = hashlib.sha256(" ".join(command).encode())
    for content in (_fingerprint(), *contents):
        digest.update(content)
    return digest.hexdigest()[:24]


def _make(command: list[str], target: Path) -> Path:
    """Runs a compiler unless it has made the target before; other processes may do the same."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}{target.suffix}")
        done = subprocess.run([*command, "-o", partial], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        partial.replace(target)
    return target


def _object(source: Path, mode: Mode) -> Path:
    is_kernel = source.suffix == ".cu"
    command = ["g++", *FLAGS, *MODE_FLAGS[mode], f"-I{HERE / 'include'}", f"-I{KERNELS}"]
    command += INSTRUMENTED if is_kernel and mode == "checked" else []
    command += ["-x", "c++", "-c", str(source)]
    folders = {KERNELS, KERNELS.parent, source.parent} if is_kernel else set()
    headers = sorted(path for folder in folders for path in folder.glob("*.*h"))
    contents = [path.read_bytes() for path in (source, *headers)]
    return _make(command, CACHE / f"{_name(command, *contents)}.o")


def build(mode: Mode, sources: Sequence[Path] | None = None) -> Path:
    """Compiles .cu files (default: all of the package) into one shared library, or finds it."""
    kernels = sorted(KERNELS.glob("*.cu")) if sources is None else list(sources)
    with ThreadPoolExecutor(2) as pool:
        objects = list(
            pool.map(functools.partial(_object, mode=mode), [*HERE.glob("*.cpp"), *kernels])
        )
    command = ["g++", "-shared", *sorted(map(str, objects))]
    return _make(command, CACHE / f"{_name(command)}.so")


class Executor:
    """A library of kernels that run on the CPU.

    ``functions`` has what the sources export. A launch at fault returns an error, of which
    ``fault`` and ``cudaGetErrorString`` have the text.
    """

    def __init__(self, mode: Mode, sources: Sequence[Path] | None = None) -> None:
        self.path = build(mode, sources)
        self.functions = ctypes.CDLL(str(self.path))
        self.functions.cuda_on_host_fault.restype = ctypes.c_char_p

    @property
    def fault(self) -> str:
        """What the latest launch did wrong; empty if nothing."""
        return self.functions.cuda_on_host_fault().decode()

    def order(self, seed: int) -> None:
        """Sets the order of blocks and threads: 0 ascending, 1 descending, else permuted."""
        self.functions.cuda_on_host_order(ctypes.c_uint(seed))

    def shared_limit(self, size: int) -> None:
        """Sets how many bytes of shared memory a block can have: that of sm_80 at first."""
        self.functions.cuda_on_host_shared_limit(ctypes.c_size_t(size))

    @contextmanager
    def guard(self) -> Iterator[Guard]:
        """Puts every new tensor between poisoned zones, and checks these at the end.

        Checked libraries take an access to anything else for a fault.
        """
        with guarded_by(self.functions) as guard:
            yield guard


@contextmanager
def guarded_by(functions: ctypes.CDLL | None) -> Iterator[Guard]:
    """The same for kernels of any library, of which nobody but the zones knows what they write."""
    guard = Guard(functions)
    try:
        with guard:
            yield guard
        guard.check()
    finally:
        guard.forget()


class Guard(TorchDispatchMode):
    """Moves the tensors that operations return into guarded memory."""

    def __init__(self, functions: ctypes.CDLL | None) -> None:
        super().__init__()
        self.functions = functions
        self.buffers: list[tuple[str, torch.Tensor, int, int]] = []  # name, bytes, begin, end

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        fresh = all(value.alias_info is None for value in func._schema.returns)
        if not fresh:
            return result
        name = func._schema.name.removeprefix("aten::")
        return torch.utils._pytree.tree_map_only(
            torch.Tensor, functools.partial(self._move, name=f"result of {name}"), result
        )

    def tensor(self, tensor: torch.Tensor, name: str = "input") -> torch.Tensor:
        """Copies a tensor with its strides and its offset from an aligned address.

        The copy is a leaf that requires a gradient if the tensor does.
        """
        copy = self._move(tensor.detach(), name)
        return copy.requires_grad_(tensor.requires_grad)

    def _move(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return tensor
        with _disable_current_modes():
            span = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            size = span * tensor.element_size() if tensor.numel() else 0
            buffer = torch.full((size + 2 * PADDING + 2 * ALIGNMENT,), POISON, dtype=torch.uint8)
            past = tensor.storage_offset() * tensor.element_size() % ALIGNMENT
            begin = PADDING + -(buffer.data_ptr() + PADDING) % ALIGNMENT + past
            whole = buffer[begin : begin + size].view(tensor.dtype)
            copy = whole.as_strided(tensor.shape, tensor.stride(), whole.storage_offset())
            if 0 in tensor.stride():  # expanded: several elements in one place
                whole.copy_(tensor.as_strided((span,), (1,)))
            else:
                copy.copy_(tensor)
        label = f"{name} {list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        self.buffers.append((label, buffer, begin, begin + size))
        if size and self.functions is not None:
            self.functions.cuda_on_host_register(
                ctypes.c_void_p(buffer.data_ptr() + begin), ctypes.c_size_t(size), label.encode()
            )
        return copy

    def check(self) -> None:
        """Raises AssertionError if anything was written beside a tensor."""
        with _disable_current_modes():
            for label, buffer, begin, end in self.buffers:
                for zone, side in ((buffer[:begin], "before"), (buffer[end:], "after")):
                    assert bool((zone == POISON).all()), f"a kernel wrote {side} the {label}"

    def forget(self) -> None:
        """Makes the tensors unknown to a checked library."""
        for _, buffer, begin, _ in self.buffers if self.functions is not None else ():
            self.functions.cuda_on_host_forget(ctypes.c_void_p(buffer.data_ptr() + begin))
