"""The least time an operation can take on a GPU: bytes moved and operations done, each once."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bench.ops import BY_NAME


class Device(NamedTuple):
    """Peaks from the vendor's data sheet, without sparsity."""

    bandwidth: float  # bytes a second
    tensor: float  # bfloat16 operations a second on tensor cores
    plain: float  # float32 operations a second elsewhere


DEVICES = {
    "A100": Device(2.039e12, 312e12, 19.5e12),
    "H100": Device(3.35e12, 989e12, 67e12),
    "B200": Device(8.0e12, 2250e12, 75e12),
}


class Work(NamedTuple):
    """What one call does at the base shape."""

    op: str
    direction: str
    bytes: float
    tensor_operations: float
    plain_operations: float


def works() -> list[Work]:
    """Each operation forward and in both directions, in bfloat16, at the shapes of the audit."""
    found = []
    for op, module in BY_NAME.items():
        x = module.at_base(torch.bfloat16)
        for both in (False, True) if module.GRADIENTS else (False,):
            done = module.work(x, both=both)
            operations = (done.operations, 0) if module.AUDITED.products else (0, done.operations)
            found.append(Work(op, "both" if both else "forward", done.bytes, *operations))
    return found


def least_time(work: Work, device: Device) -> tuple[float, str]:
    """Seconds, and what binds: "memory", "tensor cores" or "arithmetic"."""
    times = {
        "memory": work.bytes / device.bandwidth,
        "tensor cores": work.tensor_operations / device.tensor,
        "arithmetic": work.plain_operations / device.plain,
    }
    binding = max(times, key=times.__getitem__)
    return times[binding], binding
