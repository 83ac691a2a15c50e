"""Sizes and switches of the model, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from seamo_fast.errors import ConfigError, expect

# no model needs more, and products of what is within them fit int64
_MOST: Final = {
    **dict.fromkeys(("width", "heads", "decoder_width", "decoder_heads"), 2**16),
    **dict.fromkeys(("depth", "decoder_depth", "fusion_depth"), 2**10),
    **dict.fromkeys(("image_size", "patch_size"), 2**15),
}
_MOST_RATIO: Final = 2**10
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(_MOST, (int,)),
    "date_embedding": (bool,),
    "norm_pix": (bool, str),
    "mlp_ratio": (float, int),
    "fusion_window": (int, type(None)),
}

FusionMode = Literal["tm", "cascade", "concat", "temporal", "modal", "none"]
NormPix = bool | Literal["bands"]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines SeaMo's parameters and mathematics.

    Attributes:
        width: D of the encoder and the TM fusion.
        depth: Encoder blocks.
        heads: Attention heads of the encoder and the TM fusion.
        mlp_ratio: Hidden width of each MLP over its block's width.
        image_size: Side of the square that a region is resampled to, in pixels.
        patch_size: Side of a patch, in pixels.
        decoder_width: Width of each modality's decoder.
        decoder_depth: Decoder blocks.
        decoder_heads: Attention heads of the decoder.
        fusion: Which groups a group attends to after the encoder: `tm` the same modality at other
            seasons and the other modalities at the same season; `temporal` and `modal` one half of
            that; `concat` every group; `cascade` the other modalities, season by season, carrying
            the previous season along; `none` no fusion.
        fusion_depth: Fusion blocks.
        fusion_window: Largest distance |t - t'| of seasons that attend to one another
            (None: all). Missing seasons between them count.
        date_embedding: Add a day-of-year embedding to every group that has a date.
        norm_pix: Predict pixels normalised within their patch, as MAE does; `bands`: each band of a
            patch by itself, so that differences of level between bands need not be predicted.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    image_size: int = 128
    patch_size: int = 8
    decoder_width: int = 512
    decoder_depth: int = 4
    decoder_heads: int = 16
    fusion: FusionMode = "tm"
    fusion_depth: int = 1
    fusion_window: int | None = None
    date_embedding: bool = True
    norm_pix: NormPix = True

    def __post_init__(self) -> None:
        self._check_types()
        for name, most in _MOST.items():
            value = getattr(self, name)
            expect(value >= 1, f"model.{name}", "at least 1", value)
            expect(value <= most, f"model.{name}", f"at most {most}", value)
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"model.image_size {self.image_size} must be a multiple of model.patch_size "
                f"{self.patch_size}"
            )
        window = self.fusion_window
        expect(window is None or window >= 1, "model.fusion_window", "at least 1 or null", window)
        ratio, narrow = self.mlp_ratio, min(self.width, self.decoder_width)
        expect(ratio <= _MOST_RATIO, "model.mlp_ratio", f"at most {_MOST_RATIO}", ratio)
        expect(narrow * ratio >= 1, "model.mlp_ratio", "above 0", ratio)
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            self._check_width(width, heads)
        modes = get_args(FusionMode)
        expect(self.fusion in modes, "model.fusion", f"one of {', '.join(modes)}", self.fusion)
        expected = "true, false or bands" if self.patch_size > 1 else "false for patches of a pixel"
        known = (True, False, "bands") if self.patch_size > 1 else (True, False)
        expect(self.norm_pix in known, "model.norm_pix", expected, self.norm_pix)

    def _check_types(self) -> None:
        """Raises ConfigError for types that settings cannot have, but the JSON of weights can."""
        for name, kinds in _TYPES.items():
            value = getattr(self, name)
            expected = " or ".join(kind.__name__ for kind in kinds)
            expect(type(value) in kinds, f"model.{name}", expected, value)

    def _check_width(self, width: str, heads: str) -> None:
        size, count = getattr(self, width), getattr(self, heads)
        if size % count or size % 4:
            raise ConfigError(
                f"model.{width} {size} must be a multiple of model.{heads} {count} and of 4 "
                "(2-D sin-cos positions)"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """N, the patches of an image."""
        return self.grid**2


PRESETS: Final[dict[str, ModelConfig]] = {
    "tiny": ModelConfig(192, 12, 3, decoder_width=128, decoder_depth=2, decoder_heads=4),
    "small": ModelConfig(384, 12, 6, decoder_width=256, decoder_depth=4, decoder_heads=8),
    "base": ModelConfig(768, 12, 12, decoder_width=512, decoder_depth=4, decoder_heads=16),
    "large": ModelConfig(1024, 24, 16, decoder_width=512, decoder_depth=8, decoder_heads=16),
}
