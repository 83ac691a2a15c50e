"""Pretrained weights: a safetensors file that holds the config and the modalities inside.

Mirrors the names of the model's parts (`model/seamo.py`): which are optional is decided here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from seamo_fast import checkpoint_files
from seamo_fast._version import __version__
from seamo_fast.errors import CheckpointError, ConfigError
from seamo_fast.files import brief, parse_json
from seamo_fast.modalities import Modality
from seamo_fast.model.config import PRESETS, ModelConfig

_log = logging.getLogger(__name__)
_MOST_MODALITIES = 64
_MOST_PATCHES = 2**16  # of an image: the table of positions is in no file
_SIZES = ("width", "depth", "heads", "mlp_ratio")


@dataclass(frozen=True)
class Weights:
    """Parameters and what they belong to.

    Attributes:
        path: The file they were read from.
        config: Sizes and switches of the model.
        modalities: What the model takes, with the statistics that it was trained with.
        state: Parameters by name.
        metadata: All that the file says about itself.
    """

    path: Path
    config: ModelConfig
    modalities: tuple[Modality, ...]
    state: dict[str, Tensor]
    metadata: dict[str, str]

    def choose(self, names: Iterable[str] | None) -> list[Modality]:
        """Returns the named modalities, all for None.

        Raises:
            ValueError: The weights know no such modality.
        """
        known = {modality.name: modality for modality in self.modalities}
        for name in names or ():
            if name not in known:
                raise ValueError(f"{self.path} has no modality {name!r}; it has {', '.join(known)}")
        return [known[name] for name in (known if names is None else names)]

    def check_size(self, preset: str, patch_size: int | None = None) -> None:
        """Raises CheckpointError unless the encoder has the preset's size (and the patch size)."""
        wanted = {name: getattr(PRESETS[preset], name) for name in _SIZES}
        if patch_size is not None:
            wanted["patch_size"] = patch_size
        came = {name: getattr(self.config, name) for name in wanted}
        if wanted != came:
            raise CheckpointError(
                f"{self.path} belongs to another model: {preset!r} has {_sizes(wanted)}, but the "
                f"checkpoint has {_sizes(came)}"
            )

    def check_fit(self, head: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """Compares the config with the parameters of the file, before memory follows from it.

        Args:
            head: Shapes of the parameters "head.*" that the file must have; None admits any.

        Raises:
            CheckpointError: The config asks for more blocks or patches than there can be, or
                parameters are missing, unknown, or of another shape.
        """
        config = self.config
        if config.num_patches > _MOST_PATCHES:
            raise CheckpointError(
                f"{self.path}: image_size {config.image_size} makes {config.num_patches} patches "
                f"of {config.patch_size} pixels; at most {_MOST_PATCHES} are taken from a file"
            )
        decoders = [m for m in self.modalities if self._blocks(f"decoders.{m.name}")]
        sizes = {"encoder": config.depth, "fusion": config.fusion_depth}
        sizes |= {f"decoders.{m.name}": config.decoder_depth for m in decoders}
        for part, depth in sizes.items():
            if depth > self._blocks(part) and not (part == "fusion" and config.fusion == "none"):
                raise CheckpointError(
                    f"{self.path} does not fit its own config: {part} has {depth} blocks there, "
                    f"but the file holds {self._blocks(part)}"
                )
        self._compare({**parameter_shapes(config, self.modalities, decoders), **(head or {})})

    def load_into(self, model: nn.Module) -> None:
        """Fills all parameters of a model that has a subset of the parts.

        Parts that the model lacks are left aside: decoders, heads, other modalities, and fusion
        where the model has none.

        Raises:
            CheckpointError: Parameters are missing, unknown, or of another shape.
        """
        expected = model.state_dict()
        self._compare({name: tuple(tensor.shape) for name, tensor in expected.items()})
        model.load_state_dict({name: self.state[name] for name in expected})

    def _compare(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises CheckpointError unless the file holds the parameters, by name and shape."""
        missing = sorted(expected.keys() - self.state.keys())
        parts, optional = {_part(name) for name in expected}, self._optional_parts()
        unknown = sorted(
            name
            for name in self.state.keys() - expected.keys()
            if _part(name) in parts or _part(name) not in optional
        )
        if unknown or missing:
            raise CheckpointError(
                f"{self.path} does not fit its own config: {_few(missing, 'missing')}; "
                f"{_few(unknown, 'unknown')}"
            )
        for name, shape in expected.items():
            if shape != self.state[name].shape:
                raise CheckpointError(
                    f"{self.path}: {name} must be {list(shape)}, but is "
                    f"{list(self.state[name].shape)}"
                )

    def _blocks(self, part: str) -> int:
        """Returns how many blocks the file has of an encoder, a fusion or a decoder."""
        start = f"{part}.blocks."
        found = (name.removeprefix(start) for name in self.state if name.startswith(start))
        return len({name.partition(".")[0] for name in found})

    def _optional_parts(self) -> set[str]:
        of_modalities = {
            f"{table}.{modality.name}"
            for table in ("patch_embed", "modality_embed", "decoders")
            for modality in self.modalities
        }
        return {"fusion", "head", *of_modalities}


def read_weights(path: str | PathLike[str]) -> Weights:
    """Reads the weights of a pretraining or finetuning run.

    Args:
        path: A file `model.safetensors`, a folder that holds it (such as a checkpoint), or a run
            folder, whose newest undamaged checkpoint is taken.

    Raises:
        CheckpointError: There are no weights, they are damaged, or this package did not write them:
            see `checkpoint_files.read_tensors`. Whether they fit, `Weights.check_fit` says.
    """
    with checkpoint_files.reading(Path(path)):
        file = _locate(Path(path))
    state, metadata = checkpoint_files.read_tensors(file)
    try:
        config = ModelConfig(**parse_json(metadata["config"]))
        described = parse_json(metadata["modalities"])
        if len(described) > _MOST_MODALITIES:
            raise ValueError(f"{len(described)} modalities; expected at most {_MOST_MODALITIES}")
        modalities = tuple(Modality.from_dict(each) for each in described)
        if len({modality.name for modality in modalities}) < len(modalities):
            raise ValueError("a modality is named twice")
        for modality in modalities:
            modality.normalization()
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{file} does not say which model it belongs to, as weights of seamo_fast do "
            f"(config and modalities in its metadata): {brief(repr(error))}"
        ) from error
    return Weights(file, config, modalities, state, metadata)


def parameter_shapes(
    config: ModelConfig, modalities: Sequence[Modality], decoders: Sequence[Modality]
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter of a model, by name, without building it.

    Args:
        config: Sizes and switches.
        modalities: What the model takes.
        decoders: Those of them that have a decoder; none in a backbone.
    """
    width, inner, side = config.width, config.decoder_width, config.patch_size
    shapes: dict[str, tuple[int, ...]] = {}
    for m in modalities:
        shapes[f"patch_embed.{m.name}.weight"] = (width, len(m.bands), side, side)
        shapes[f"patch_embed.{m.name}.bias"] = shapes[f"modality_embed.{m.name}"] = (width,)
    if config.date_embedding:
        shapes["date_embed.weight"] = (width, 4)
    for number in range(config.depth):
        shapes |= _block(f"encoder.blocks.{number}", width, config.mlp_ratio, {"qkv": 3})
    shapes |= _norm("encoder.norm", width)
    if config.fusion != "none":
        for number in range(config.fusion_depth):
            name = f"fusion.blocks.{number}"
            shapes |= _block(name, width, config.mlp_ratio, {"q": 1, "kv": 2})
            if config.fusion == "cascade":
                shapes |= _linear(f"{name}.carry", width, 2 * width)
        shapes |= _norm("fusion.norm", width)
    for m in decoders:
        part = f"decoders.{m.name}"
        shapes[f"{part}.mask_token"] = (inner,)
        shapes |= _linear(f"{part}.embed", inner, width)
        for number in range(config.decoder_depth):
            shapes |= _block(f"{part}.blocks.{number}", inner, config.mlp_ratio, {"qkv": 3})
        shapes |= _norm(f"{part}.norm", inner)
        shapes |= _linear(f"{part}.head", len(m.bands) * side**2, inner)
    return shapes


def _block(
    name: str, width: int, ratio: float, projections: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes of a transformer block; the width of each input projection, over the block's."""
    shapes = _norm(f"{name}.norm1", width) | _norm(f"{name}.norm2", width)
    for projection, times in {**projections, "proj": 1}.items():
        shapes |= _linear(f"{name}.attn.{projection}", times * width, width)
    hidden = int(width * ratio)
    mlp = _linear(f"{name}.mlp.fc1", hidden, width) | _linear(f"{name}.mlp.fc2", width, hidden)
    return shapes | mlp


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def model_metadata(config: ModelConfig, modalities: Sequence[Modality]) -> dict[str, str]:
    """Returns what `model.safetensors` says about itself: all that is needed to use the weights."""
    return {
        "seamo_fast": __version__,
        "config": json.dumps(asdict(config)),
        "modalities": json.dumps([modality.to_dict() for modality in modalities]),
    }


def _locate(path: Path) -> Path:
    """Returns the safetensors file that `path` means."""
    if path.is_file():
        if (
            path.name == checkpoint_files.MODEL
            and (path.parent / checkpoint_files.RECORD).is_file()
        ):
            checkpoint_files.verify(path.parent)
        return path
    if (path / checkpoint_files.RECORD).is_file():
        checkpoint_files.verify(path)
    if (path / checkpoint_files.MODEL).is_file():
        return path / checkpoint_files.MODEL
    newest = checkpoint_files.newest_good(path / "checkpoints", refused=_log.warning)
    if newest is None:
        raise CheckpointError(
            f"{path} holds no weights; give a {checkpoint_files.MODEL}, a checkpoint folder, or a "
            "run folder with checkpoints"
        )
    return newest / checkpoint_files.MODEL


def _part(name: str) -> str:
    """Returns the part of the model that a parameter belongs to, one for each modality."""
    first, _, rest = name.partition(".")
    if first in ("patch_embed", "modality_embed", "decoders"):
        return f"{first}.{rest.partition('.')[0]}"
    return first


def _sizes(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _few(names: list[str], what: str) -> str:
    return f"{len(names)} {what}" + (f" ({brief(', '.join(names[:3]))})" if names else "")
