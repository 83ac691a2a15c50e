"""From raw tiles to tokens: patch projection, positions, modality and date embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seamo_fast import kernels
from seamo_fast.modalities import MISSING_DATE, Modality
from seamo_fast.model.layers import compute_dtype


class PatchEmbed(nn.Module):
    """Cuts, normalises and projects the patches of one modality.

    The weight has the shape of the Conv2d that would embed the published bands in their order,
    [D, C, p, p], so that it moves freely between this package and others.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, modality: Modality, patch_size: int, width: int) -> None:
        super().__init__()
        channels = len(modality.bands)
        self.modality = modality
        self.order = modality.order
        self.channels = [len(grid.bands) for grid in modality.grids]
        self.nodata = modality.nodata
        self.whole_pixel = modality.nodata_rule == "pixel"
        self.limit = modality.limit
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty(width, channels, patch_size, patch_size))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.weight.view(width, -1))
        shift, scale = modality.normalization()
        self.register_buffer("shift", torch.tensor(shift), persistent=False)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def gather(
        self,
        grids: list[Tensor],
        boxes: Tensor,
        index: Tensor,
        image_size: int | tuple[int, int],
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns normalised patches [B, T, K, P] and whether each is measured, bool [B, T, K].

        Args:
            grids: Stored tiles, each [B, T, Cg, Hg, Wg].
            boxes: [B, T, 4], regions as in `Views.boxes`.
            index: [B, T, K], patch numbers.
            image_size: Side (or height and width) of the resampled region, in pixels.
            dtype: Of the patches; None for that of matrix products.

        Raises:
            ValueError: The grids do not hold the bands of this modality.
        """
        if [grid.shape[2] for grid in grids] != self.channels:
            names = self.modality.band_names
            expected = [[names[c] for c in grid.bands] for grid in self.modality.grids]
            raise ValueError(
                f"{self.modality.name} must have {len(self.channels)} grids with the bands "
                f"{expected}, but got grids of {[grid.shape[2] for grid in grids]} bands; "
                "use Modality.on_one_grid() where all bands are stored on one"
            )
        return kernels.gather_patches(
            grids,
            boxes,
            index,
            self.shift,
            self.scale,
            order=self.order,
            image_size=image_size,
            patch_size=self.patch_size,
            nodata=self.nodata,
            whole_pixel=self.whole_pixel,
            limit=self.limit,
            dtype=dtype or compute_dtype(boxes.device, self.weight.dtype),
        )

    def forward(self, patches: Tensor, table: Tensor, index: Tensor, offset: Tensor) -> Tensor:
        """Returns tokens [B, T, K, D]: projection + positional row + the group's offset.

        Args:
            patches: [B, T, K, P].
            table: [N, D], positions.
            index: [B, T, K], patch numbers.
            offset: [B, T, D].
        """
        weight = self.weight.flatten(1)
        return kernels.embed_patches(patches, weight, self.bias, table, index, offset)


class DateEmbedding(nn.Module):
    """Adds the time of the year: a linear map of its first two harmonics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 4))

    def forward(self, dates: Tensor) -> Tensor:
        """Returns [..., D] for `dates` [...], zero where the date is missing."""
        angle = (2 * math.pi / 365.25) * (day_of_year(dates).to(self.weight.dtype) - 1)
        waves = [angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()]
        harmonics = torch.stack(waves, dim=-1)
        return (harmonics * (dates != MISSING_DATE)[..., None]) @ self.weight.t()


def check_date_dtype(dates: Tensor) -> None:
    """Raises ValueError unless dates are int32 or int64: others overflow, or may be no days."""
    if dates.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"dates must be int32 or int64, days since 1970-01-01, but got {dates.dtype}; "
            "give whole days, and MISSING_DATE where there is none"
        )


def day_of_year(dates: Tensor) -> Tensor:
    """Returns the day of the year, 1 to 366, of days since 1970-01-01 (1 where missing).

    Integer arithmetic of the Gregorian calendar, so that it runs on the device: years are counted
    from 1 March, which puts the leap day last.

    Args:
        dates: int32 or int64, of any shape.

    Raises:
        ValueError: Another dtype.
    """
    check_date_dtype(dates)
    days = torch.where(dates == MISSING_DATE, 0, dates) + 719468
    day = days % 146097
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    since_march = day - (365 * year + year // 4 - year // 100)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year == 0))
    january_to_february = since_march >= 306
    return torch.where(january_to_february, since_march - 305, since_march + 60 + leap.int())


def sincos_positions(
    width: int, rows: int, columns: int, trained: tuple[int, int] | None = None
) -> Tensor:
    """Returns the fixed 2-D sin-cos table [rows * columns, D] of MAE (He et al., 2022).

    Args:
        width: D, a multiple of 4; its first half encodes the row, its second the column.
        rows: Patches down.
        columns: Patches across.
        trained: Patch grid of pretraining; positions of another grid are stretched onto it.
    """
    positions = []
    for count, original in zip((rows, columns), trained or (rows, columns), strict=True):
        place = (torch.arange(count, dtype=torch.float64) + 0.5) * (original / count) - 0.5
        omega = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
        angle = place[:, None] * omega
        positions.append(torch.cat([angle.sin(), angle.cos()], dim=1))
    down = positions[0][:, None].expand(-1, columns, -1)
    across = positions[1][None].expand(rows, -1, -1)
    return torch.cat([down, across], dim=-1).flatten(0, 1).float()
