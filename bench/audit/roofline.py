"""The least time an operation can take on a GPU: bytes moved and operations done, each once."""

from __future__ import annotations

from typing import NamedTuple

from bench.sizes import BASE, MODALITIES, POSITIONS, SEASONS, TOKENS, VALUES

# base model, both modalities of four seasons; bfloat16
_B, _T, _M, _K, _N, _P = 64, SEASONS, MODALITIES, TOKENS, POSITIONS, VALUES
_D, _DECODER, _H = BASE.width, BASE.decoder_width, BASE.heads
_HALF, _FULL = 2, 4  # bytes


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
    """Each operation in each direction; gather, embed, assemble and loss for one modality."""
    images, rows = _B * _T, _B * _T * _K
    stored = (4 * 264**2 + 6 * 132**2 + 2 * 44**2) * 2  # bytes of Sentinel-2 at native resolution
    patches = rows * _P * _HALF
    tokens = rows * _D * _HALF
    weight = _D * _P
    sequence = images * _N * _DECODER * _HALF
    visible = rows * _DECODER * _HALF
    hidden = images * (_N - _K) * _P * _HALF
    state = _B * _T * _M * _K * _D * _HALF
    sums = _B * _T * _M * _K * _H * _FULL
    pairs = _B * _T * _M * _K * (_T - 1 + _M - 1) * _K
    product = 2 * pairs * _D
    return [
        Work("gather_patches", "forward", images * stored * _K / _N + patches, 0, 12 * rows * _P),
        Work("embed_patches", "forward", patches + weight * _HALF + tokens, 2 * rows * weight, 0),
        Work("embed_patches", "backward", patches + tokens + weight * _FULL, 2 * rows * weight, 0),
        Work("assemble_tokens", "forward", visible + sequence, 0, sequence / _HALF),
        Work("assemble_tokens", "backward", visible + sequence, 0, sequence / _HALF),
        Work("tm_attention", "forward", 4 * state + sums, 2 * product, 5 * pairs * _H),
        Work("tm_attention", "backward", 8 * state + sums, 5 * product, 8 * pairs * _H),
        Work("norm_pix_loss", "forward", 2 * hidden, 0, 8 * hidden / _HALF),
        Work("norm_pix_loss", "backward", 3 * hidden, 0, 9 * hidden / _HALF),
    ]


def least_time(work: Work, device: Device) -> tuple[float, str]:
    """Seconds, and what binds: "memory", "tensor cores" or "arithmetic"."""
    times = {
        "memory": work.bytes / device.bandwidth,
        "tensor cores": work.tensor_operations / device.tensor,
        "arithmetic": work.plain_operations / device.plain,
    }
    binding = max(times, key=times.__getitem__)
    return times[binding], binding
