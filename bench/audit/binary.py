"""What a compiled GPU kernel needs: registers, memory, tensor cores, and how many fit at once."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

_HOPPER = r"\bHGMMA"
_BLACKWELL = r"\bUTC\w*MMA"


class Target(NamedTuple):
    """Limits of one processor (SM or CU), from the vendors' programming guides."""

    shared_block: int  # bytes a block may use
    reserved: int  # bytes that a binary declares beyond those
    shared: int  # bytes of a processor
    warps: int
    blocks: int
    tensor: str  # instructions of tensor cores, as a regular expression


TARGETS = {
    "sm_80": Target(166912, 0, 167936, 64, 32, r"\bHMMA"),
    "sm_90": Target(232448, 1024, 233472, 64, 32, rf"\bHMMA|{_HOPPER}"),
    "sm_100": Target(232448, 1024, 233472, 64, 32, rf"\bHMMA|{_BLACKWELL}"),
    "gfx942": Target(65536, 0, 65536, 32, 32, r"\bv_mfma"),
}


class Binary(NamedTuple):
    """What was read from one compiled kernel."""

    registers: int
    spill_bytes: int
    shared: int
    occupancy: float  # warps that fit a processor, of those it has room for
    tensor: str  # the tensor-core instruction, "" if there is none
    wide_loads: int  # loads of 16 bytes from global memory
    wide_stores: int


class Kernel(NamedTuple):
    """One compiled kernel."""

    name: str
    configuration: str
    binary: Binary


class Function(NamedTuple):
    """A kernel as an NVIDIA binary holds it."""

    registers: int
    stack: int  # bytes a thread
    shared: int  # bytes of static shared memory
    code: str


def functions(cubin: bytes, target: str) -> dict[str, Function]:
    """Every kernel of an NVIDIA binary, by its mangled name."""
    usages = _sections(_cuobjdump(cubin, "-res-usage"), r"^ Function (\S+):$")
    codes = _sections(_cuobjdump(cubin, "-sass"), r"^\s*Function : (\S+)$")
    found = {}
    for name, usage in usages.items():
        numbers = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
        assert numbers is not None, usage
        registers, stack, shared = map(int, numbers.groups())
        static = max(0, shared - TARGETS[target].reserved)
        found[name] = Function(registers, stack, static, codes[name])
    return found


def _sections(listing: str, heading: str) -> dict[str, str]:
    """What cuobjdump lists below each kernel's heading, which captures the name."""
    _, *parts = re.split(heading, listing, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def read_function(
    function: Function, target: str, *, warps: int, shared: int, tensor_columns: int = 0
) -> Binary:
    """What one kernel needs.

    Args:
        function: From an NVIDIA binary.
        target: Name in TARGETS.
        warps: Warps a block is launched with.
        shared: Bytes of shared memory a block is launched with, static ones included.
        tensor_columns: Columns of tensor memory a block takes.
    """
    return Binary(
        function.registers,
        function.stack,
        shared,
        nvidia_occupancy(target, function.registers, warps, shared, tensor_columns),
        _first(TARGETS[target].tensor, function.code),
        len(re.findall(r"\b(?:LDG|LDGSTS)\S*\.128", function.code)),
        len(re.findall(r"\bSTG\S*\.128", function.code)),
    )


def nvidia_occupancy(
    target: str, registers: int, warps: int, shared: int, tensor_columns: int
) -> float:
    """Share of a processor's warps that blocks of so many warps can fill."""
    limits = TARGETS[target]
    # registers come in units of 256 a warp, a quarter of 65536 for each of four schedulers
    by_registers = 16384 // (-(-registers * 32 // 256) * 256) * 4 // warps
    by_shared = limits.shared // (-(-shared // 128) * 128 + 1024)
    by_tensor = 512 // tensor_columns if tensor_columns else limits.blocks
    blocks = min(limits.blocks, limits.warps // warps, by_registers, by_shared, by_tensor)
    return blocks * warps / limits.warps


def read_amdgcn(code: str, *, warps: int, shared: int) -> Binary:
    """Reads the assembly of one kernel for gfx942."""
    registers, spilled = (
        int(re.findall(rf"\.{name}:\s+(\d+)", code)[0])
        for name in ("vgpr_count", "vgpr_spill_count")
    )
    limits = TARGETS["gfx942"]
    # 512 registers a lane for each of four schedulers, in units of 8; at most 8 warps each
    by_registers = min(8, 512 // max(8, -(-registers // 8) * 8)) * 4 // warps
    by_shared = limits.shared // max(shared, 1)
    blocks = min(limits.blocks, limits.warps // warps, by_registers, by_shared)
    return Binary(
        registers,
        4 * spilled,
        shared,
        blocks * warps / limits.warps,
        _first(limits.tensor, code),
        len(re.findall(r"\b(?:global|buffer)_load_dwordx4", code)),
        len(re.findall(r"\b(?:global|buffer)_store_dwordx4", code)),
    )


def _first(pattern: str, code: str) -> str:
    found = re.search(rf"(?:{pattern})\w*", code)
    return found[0] if found else ""


@functools.cache
def cuobjdump() -> str:
    """Where the disassembler is: in the triton package, or on the PATH."""
    package = importlib.util.find_spec("triton")
    origin = package.origin if package else None
    inside = Path(origin or "").parent / "backends/nvidia/bin/cuobjdump"
    found = str(inside) if inside.exists() else shutil.which("cuobjdump")
    if found is None:
        raise FileNotFoundError("cuobjdump is neither in the triton package nor on the PATH")
    return found


def _cuobjdump(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run(
            [cuobjdump(), option, file.name], capture_output=True, text=True, check=True
        )
    return run.stdout
