"""TileBatch: what loaders yield and models take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch
from torch import Tensor

TILE_DTYPES: Final = (
    torch.uint8,
    torch.uint16,
    torch.int16,
    torch.float16,
    torch.float32,
    torch.float64,
)


@dataclass
class TileBatch:
    """Raw tiles of B places at T seasons in M modalities, bands on their native grids.

    Attributes:
        modalities: Names in the order of the M axis.
        bands: For each modality its grids in ascending ground sampling distance, each
            [B, T, Cg, Hg, Wg] of stored values (one of `TILE_DTYPES`, unit by the Modality).
        valid: bool [B, T, M], whether a group exists in a sample.
        dates: int32 [B, T, M], days since 1970-01-01, `modalities.MISSING_DATE` where unknown.
        ids: int64 [B], sample numbers in the shard set.
        epochs: int64 [B], how often each sample has been drawn before; keys its views.
        complete: Every group is valid, here and in the other batches of a loader. Known on the
            host, so that attention can go without a mask and without reading `valid` back from
            the device.
    """

    modalities: tuple[str, ...]
    bands: dict[str, list[Tensor]]
    valid: Tensor
    dates: Tensor
    ids: Tensor
    epochs: Tensor
    complete: bool

    @property
    def batch_size(self) -> int:
        """B, the places."""
        return self.valid.shape[0]

    @property
    def seasons(self) -> int:
        """T, the acquisition dates of a place."""
        return self.valid.shape[1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TileBatch:
        """Returns the batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TileBatch:
        """Returns the batch in page-locked memory, from which GPUs copy without waiting."""
        return self._map(Tensor.pin_memory)

    def split(self, parts: int) -> list[TileBatch]:
        """Returns contiguous parts of B / parts places each; `parts` must divide B."""
        rows = self.batch_size // parts
        return [self._map(partial(_rows, start=k * rows, count=rows)) for k in range(parts)]

    def check(self) -> None:
        """Raises ValueError naming the first field whose shape or dtype breaks the contract."""
        groups = (self.batch_size, self.seasons, len(self.modalities))
        self._expect("valid", self.valid, groups, (torch.bool,))
        self._expect("dates", self.dates, groups, (torch.int32,))
        self._expect("ids", self.ids, groups[:1], (torch.int64,))
        self._expect("epochs", self.epochs, groups[:1], (torch.int64,))
        if tuple(self.bands) != self.modalities:
            raise ValueError(
                f"bands must have the keys {self.modalities} in this order, "
                f"but got {tuple(self.bands)}"
            )
        for name, grids in self.bands.items():
            for number, grid in enumerate(grids):
                if grid.ndim != 5:
                    raise ValueError(
                        f"bands[{name!r}][{number}] must be [B, T, Cg, Hg, Wg], "
                        f"but got {list(grid.shape)}"
                    )
                expected = (*groups[:2], *grid.shape[2:])
                self._expect(f"bands[{name!r}][{number}]", grid, expected, TILE_DTYPES)

    @staticmethod
    def _expect(
        name: str, tensor: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]
    ) -> None:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {list(shape)}, but got {list(tensor.shape)}")
        if tensor.dtype not in dtypes:
            expected = " or ".join(str(dtype) for dtype in dtypes)
            raise ValueError(f"{name} must be {expected}, but got {tensor.dtype}")

    def _map(self, function: Callable[[Tensor], Tensor]) -> TileBatch:
        return replace(
            self,
            bands={name: [function(grid) for grid in grids] for name, grids in self.bands.items()},
            valid=function(self.valid),
            dates=function(self.dates),
            ids=function(self.ids),
            epochs=function(self.epochs),
        )


def _rows(tensor: Tensor, start: int, count: int) -> Tensor:
    return tensor[start : start + count]
