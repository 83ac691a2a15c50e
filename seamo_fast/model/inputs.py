"""What a backbone takes: checks of shapes, choice of bands and blocks, mean over groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from seamo_fast import kernels
from seamo_fast.modalities import FIRST_DATE, LAST_DATE, MISSING_DATE, Band, Modality
from seamo_fast.model.embedding import PatchEmbed, check_date_dtype

SAME_BAND: Final = 30.0  # nm; the two Sentinel-2 satellites differ by up to 17
NEAR_BAND: Final = 100.0  # nm
UnknownBands = Literal["leave_out", "nearest", "zero"]


def check_images(
    images: Mapping[str, Tensor], modalities: Mapping[str, Modality], patch_size: int
) -> tuple[int, int, int, int]:
    """Returns B, T, H and W of images [B, T, C, H, W].

    Raises:
        ValueError: There are none, or a shape does not fit the modality, the patches or the others.
    """
    if not images:
        raise ValueError("x must hold at least one modality, but is empty")
    for name, image in images.items():
        bands = modalities[name].band_names
        if image.ndim != 5 or image.shape[2] != len(bands):
            raise ValueError(
                f"{name} must be [B, T, C, H, W] or [B, C, H, W] with the {len(bands)} bands "
                f"{', '.join(bands)}, but got {list(image.shape)}; adapt() makes it take others"
            )
    shapes = {name: (*image.shape[:2], *image.shape[3:]) for name, image in images.items()}
    (first, (B, T, H, W)), *others = shapes.items()
    for name, shape in others:
        if shape != (B, T, H, W):
            raise ValueError(
                f"all modalities must have the same B, T, H and W, but {first} has "
                f"{[B, T, H, W]} and {name} {list(shape)}"
            )
    if min(H, W) == 0 or H % patch_size or W % patch_size:
        raise ValueError(
            f"height and width must be multiples of the patch size {patch_size}, but {first} is "
            f"{H} x {W}"
        )
    return B, T, H, W


def check_groups(dates: Tensor | None, valid: Tensor | None, groups: tuple[int, int, int]) -> None:
    """Raises ValueError unless dates are [B, T] or [B, T, M], and valid is bool [B, T, M].

    Dates must be whole days from `FIRST_DATE` to `LAST_DATE`, or `MISSING_DATE`; those of groups
    that do not exist may be anything. Compiled programs do not look at their numbers, and a GPU is
    not waited for: it stops at its assertion.

    Args:
        dates: As in `SeaMoBackbone.forward`.
        valid: As in `SeaMoBackbone.forward`.
        groups: B, T, M.
    """
    if valid is not None and (tuple(valid.shape) != groups or valid.dtype != torch.bool):
        raise ValueError(
            f"valid must be bool {list(groups)}, but got {valid.dtype} {list(valid.shape)}"
        )
    if dates is None:
        return
    if tuple(dates.shape) not in (groups, groups[:2]):
        raise ValueError(
            f"dates must be {list(groups[:2])} or {list(groups)}, but got {list(dates.shape)}"
        )
    check_date_dtype(dates)
    given = [tensor for tensor in (dates, valid) if tensor is not None]
    if not torch.compiler.is_compiling() and all(map(kernels.has_numbers, given)):
        _check_range(dates, valid)


def _check_range(dates: Tensor, valid: Tensor | None) -> None:
    wrong = (dates != MISSING_DATE) & ((dates < FIRST_DATE) | (dates > LAST_DATE))
    if valid is not None:
        wrong = wrong & (valid if dates.ndim == 3 else valid.any(dim=2))
    if wrong.is_cuda:
        torch._assert_async(~wrong.any(), "dates must be days since 1970-01-01, 1900 to 2200")
    elif wrong.any():
        raise ValueError(
            f"dates must be days since 1970-01-01, {FIRST_DATE} (1900-01-01) to {LAST_DATE} "
            f"(2200-01-01), or MISSING_DATE, but got {dates[wrong][0].item()}; "
            "datetime.date.toordinal() - 719163 gives them"
        )


class BandStart(NamedTuple):
    """Where the weights of a band start.

    Attributes:
        band: Its name in the new description.
        source: The pretrained band whose weights it takes; None: it starts from zero.
        share: Factor of these weights.
    """

    band: str
    source: str | None
    share: float = 1.0


def shared_bands(known: Modality, modality: Modality) -> list[str]:
    """Returns the bands of `modality` that `known` has too, in the order of `modality`.

    The same band has the same name, and its wavelength differs by less than 30 nm.
    """
    wavelengths = {band.name: band.wavelength for band in known.bands}
    names = []
    for band in modality.bands:
        here, there = band.wavelength, wavelengths.get(band.name)
        near = here is None or there is None or abs(here - there) < SAME_BAND
        if band.name in wavelengths and near:
            names.append(band.name)
    return names


def band_starts(
    known: Modality, modality: Modality, unknown: UnknownBands
) -> tuple[BandStart, ...]:
    """Returns where the weights of each band of `modality` start, in its order.

    Bands that both have (`shared_bands`) keep their weights untouched. Unknown ones:

    - `leave_out`: are not in the result.
    - `zero`: start from zero.
    - `nearest`: start from the pretrained band of the nearest wavelength, at most 100 nm away.
      Landsat's 590 nm lies 30 nm from Sentinel-2's green; cirrus (1375 nm, where water vapour hides
      the ground) lies 235 nm from any other band. Those too far away start from zero, and so do
      radar and whatever has no wavelength.

    Each pretrained band gives its weights W once: whole to the band that shares it, else in equal
    parts to those that are nearest to it. Bands so near are nearly proportional, so that n of them
    with W / n add up to what one gives with W; with W / sqrt(n), right for independent bands, they
    would add up to more. A band whose nearest one is shared already starts from zero. A pretrained
    band from which nothing starts counts as in pixels that were not measured, as its mean, 0 after
    normalisation: pretraining knows that, so nothing else is scaled up for it.

    Args:
        known: The pretrained description.
        modality: The new one.
        unknown: See above.
    """
    shared = set(shared_bands(known, modality))
    sources: dict[str, str | None] = {}
    for band in modality.bands:
        if band.name in shared:
            sources[band.name] = band.name
        elif unknown != "leave_out":
            near = _nearest(known, band) if unknown == "nearest" else None
            sources[band.name] = None if near in shared else near
    takers = Counter(sources.values())
    return tuple(
        BandStart(band, source, 1 / takers[source] if source else 1.0)
        for band, source in sources.items()
    )


def _nearest(known: Modality, band: Band) -> str | None:
    """Returns the band of the nearest wavelength, the first of equals; None if none is near."""
    if band.wavelength is None:
        return None
    distances = {
        each.name: abs(each.wavelength - band.wavelength)
        for each in known.bands
        if each.wavelength is not None
    }
    nearest = min(distances, key=distances.__getitem__, default=None)
    return nearest if nearest and distances[nearest] <= NEAR_BAND else None


def select_bands(
    embed: PatchEmbed, modality: Modality, unknown: UnknownBands = "leave_out"
) -> PatchEmbed:
    """Returns an embedding of the same name for another description of the bands.

    Args:
        embed: Pretrained.
        modality: Fewer, more or reordered bands, other units or statistics.
        unknown: Where bands start that `embed` does not know, see `band_starts`; with `leave_out`
            there may be none.

    Raises:
        ValueError: Unknown bands are left out but there are some, no band starts from a pretrained
            one, or the statistics are missing.
    """
    name, known = embed.modality.name, embed.modality.band_names
    starts = band_starts(embed.modality, modality, unknown)
    placed = {start.band for start in starts}
    lost = [band for band in modality.band_names if band not in placed]
    if lost or not any(start.source for start in starts):
        hint = "leave others out with Modality.subset(), or give unknown='nearest' or 'zero'"
        raise ValueError(
            f"{name!r} of the backbone has no band like "
            f"{', '.join(lost or modality.band_names)} of {modality.name!r}; it has "
            f"{', '.join(known)}; {hint if lost else 'one at least must start from these'}"
        )
    width = len(embed.weight)
    new = PatchEmbed(replace(modality, name=name), embed.patch_size, width).to(embed.weight)
    with torch.no_grad():
        new.weight.zero_()
        for channel, (_, source, share) in enumerate(starts):
            if source:
                new.weight[:, channel] = embed.weight[:, known.index(source)] * share
        new.bias.copy_(embed.bias)
    return new.requires_grad_(embed.weight.requires_grad)


def block_numbers(indices: Sequence[int] | None, depth: int) -> set[int]:
    """Returns the numbers of blocks that `indices` mean, all for None.

    Raises:
        ValueError: There is no such block.
    """
    for index in indices or ():
        if not -depth <= index < depth:
            raise ValueError(f"the encoder has blocks 0 to {depth - 1}, but got {index}")
    return set(range(depth)) if indices is None else {index % depth for index in indices}


def mean_over_groups(z: Tensor, valid: Tensor | None) -> Tensor:
    """Returns z [B, T, M, N, D] averaged over valid groups [B, T, M]: [B, N, D], 0 without any."""
    if valid is None:
        return z.mean(dim=(1, 2))
    kept = torch.where(valid[..., None, None], z, 0).sum(dim=(1, 2))
    return kept / valid.sum(dim=(1, 2)).clamp(min=1)[:, None, None]
