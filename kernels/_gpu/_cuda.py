"""The CUDA kernels: one library of C functions that take a pointer to a struct, through ctypes.

The library says how its structs look, see csrc/cuda/params.h.
"""

from __future__ import annotations

import ctypes
import functools
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _native, _torch_private

LIBRARY = "libseamo_cuda.so"

# Storage in csrc/cuda/params.h
_STORAGE = {
    dtype: number
    for number, dtype in enumerate(
        (
            *(torch.float32, torch.float16, torch.bfloat16),
            *(torch.uint8, torch.uint16, torch.int16, torch.int32, torch.int64, torch.bool),
        )
    )
}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)

_C_TYPES: dict[str, Any] = {
    "int64_t": ctypes.c_int64,
    "int32_t": ctypes.c_int32,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
_DECLARATION = re.compile(r"(?:const )?(\w+)\s*(\**)\s*(.+)")
_FIELD = re.compile(r"(\w+)(?:\[(\d+)\])?")

_substitute: Path | None = None


def use(library: Path | None) -> Path | None:
    """Makes another library run from now on, such as one whose kernels run on the CPU; for tests.

    Args:
        library: where it is; None for the one that was compiled for the GPU.

    Returns:
        The library that was used before.
    """
    global _substitute
    before, _substitute = _substitute, library
    for cached in (load, _function, struct):
        cached.cache_clear()
    return before


@functools.cache
def load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    path = _substitute or _native.find(_native.CUDA)
    if isinstance(path, str):
        return path
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        return f"it cannot be loaded ({error}): {_native.REMEDY}"


@functools.cache
def struct(name: str) -> type[ctypes.Structure]:
    """The struct of this name, as the library declares it."""
    library = _loaded()
    declare, size = (getattr(library, f"seamo_{what}_of_{name}") for what in ("fields", "size"))
    declare.restype, size.restype = ctypes.c_char_p, ctypes.c_int64
    fields = []
    for declaration in declare().decode().split(";")[:-1]:
        match = _DECLARATION.fullmatch(declaration.strip())
        if match is None:
            raise RuntimeError(f"{LIBRARY} declares {name} with {declaration!r}")
        kind, pointer, names = match.groups()
        base = ctypes.c_void_p if pointer else _C_TYPES.get(kind) or struct(kind)
        for field, count in _FIELD.findall(names):
            fields.append((field, base * int(count) if count else base))
    made = type(name, (ctypes.Structure,), {"_fields_": fields})
    if ctypes.sizeof(made) != size():
        raise RuntimeError(
            f"{name} has {size()} bytes in {LIBRARY}, but here {ctypes.sizeof(made)}"
        )
    return made


def run(op: str, **fields: Any) -> None:
    """Runs the function ``seamo_<op>`` on the current stream of the device of its tensors.

    Args:
        op: such as "embed_patches_backward"; its struct is EmbedPatchesBackward.
        fields: of the struct, all but ``stream``: tensors (for pointers), None (a null pointer),
            numbers, structs and tuples (for arrays).

    Raises:
        RuntimeError: a launch failed.
    """
    function, make, names = _function(op)
    if fields.keys() != names:
        raise TypeError(f"{op} takes {sorted(names)}, but got {sorted(fields)}")
    device, kept = None, list(fields.values())  # temporary tensors live until the launch
    for name, value in fields.items():
        if isinstance(value, Tensor):
            device = value.device
            fields[name] = value.data_ptr()
    with _current(device):
        code = function(make(**fields, stream=_stream(device)))
    del kept
    if code:
        raise RuntimeError(f"seamo::{op} failed on {device}: {_error(code)}")


@functools.cache
def _function(op: str) -> tuple[Any, Any, frozenset[str]]:
    made = struct("".join(word.capitalize() for word in op.split("_")))
    function = getattr(_loaded(), f"seamo_{op}")
    function.argtypes, function.restype = [ctypes.POINTER(made)], ctypes.c_int
    return function, made, frozenset(name for name, *_ in made._fields_) - {"stream"}


def _loaded() -> ctypes.CDLL:
    library = load()
    if isinstance(library, str):
        raise RuntimeError(f"the CUDA kernels: {library}")
    return library


def _current(device: torch.device | None) -> AbstractContextManager[Any]:
    """Makes a device the one that kernels are launched on."""
    return torch.cuda.device(device) if device and device.type == "cuda" else nullcontext()


def _stream(device: torch.device | None) -> int:
    if device is None or device.type != "cuda":
        return 0
    return _torch_private.raw_stream(device.index)


def _error(code: int) -> str:
    describe = _loaded().seamo_error
    describe.restype = ctypes.c_char_p
    return f"{describe(code).decode()} (CUDA error {code})"


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels compute in the dtypes of these tensors."""
    return all(tensor.dtype in _FLOATS for tensor in tensors)


def storage(tensor: Tensor) -> int:
    """The number of the tensor's dtype."""
    return _STORAGE[tensor.dtype]


def floats(tensor: Tensor | None) -> Tensor | None:
    """A parameter as the kernels read it: contiguous, float32."""
    return None if tensor is None else tensor.to(torch.float32).contiguous()


def tf32() -> bool:
    """Whether products of float32 may be computed in TF32: only where PyTorch may do so too."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def rows(tensor: Tensor) -> Any:
    """The struct Rows of a tensor [..., D]; holds what it points to."""
    if tensor.numel() == 0:
        return struct("Rows")(None, 1, 0, 0)
    blocks = tensor.reshape(-1, *tensor.shape[-2:]) if tensor.dim() > 1 else tensor[None, None]
    if blocks.stride(2) != 1 and blocks.shape[2] > 1:
        blocks = blocks.contiguous()
    count, inner, _ = blocks.shape
    outer_stride, stride, _ = blocks.stride()
    if inner == 1 or count == 1 or outer_stride == inner * stride:
        inner, stride = count * inner, outer_stride if inner == 1 else stride
    made = struct("Rows")(blocks.data_ptr(), inner, outer_stride, stride)
    made.tensor = blocks
    return made


def matrix(tensor: Tensor) -> Any:
    """The struct Matrix of a tensor [..., D], copied if its rows lie in several blocks."""
    made = rows(tensor)
    if made.inner < tensor.shape[:-1].numel():
        made = rows(tensor.contiguous())
    taken = struct("Matrix")(made.data, made.stride)
    taken.rows = made
    return taken
