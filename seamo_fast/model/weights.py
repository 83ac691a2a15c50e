"""Pretrained weights: a safetensors file that holds the config and the modalities inside.

Mirrors the names of the model's parts (`model/seamo.py`): which are optional is decided here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from seamo_fast import checkpoint_files
from seamo_fast._version import __version__
from seamo_fast.errors import CheckpointError, ConfigError
from seamo_fast.modalities import Modality
from seamo_fast.model.config import PRESETS, ModelConfig

_log = logging.getLogger(__name__)
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

    def load_into(self, model: nn.Module) -> None:
        """Fills all parameters of a model that has a subset of the parts.

        Parts that the model lacks are left aside: decoders, heads, other modalities, and fusion
        where the model has none.

        Raises:
            CheckpointError: Parameters are missing, unknown, or of another shape.
        """
        expected = model.state_dict()
        missing = sorted(expected.keys() - self.state.keys())
        parts = {_part(name) for name in expected}
        unknown = sorted(
            name
            for name in self.state.keys() - expected.keys()
            if _part(name) in parts or _part(name) not in self._optional_parts()
        )
        if unknown or missing:
            raise CheckpointError(
                f"{self.path} does not fit its own config: {_few(missing, 'missing')}; "
                f"{_few(unknown, 'unknown')}"
            )
        state = {name: self.state[name] for name in expected}
        for name, tensor in state.items():
            if tensor.shape != expected[name].shape:
                raise CheckpointError(
                    f"{self.path}: {name} must be {list(expected[name].shape)}, but is "
                    f"{list(tensor.shape)}"
                )
        model.load_state_dict(state)

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
        CheckpointError: There are no weights, they are damaged, or this package did not write them.
    """
    file = _locate(Path(path))
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or no safetensors file: {error}") from error
    try:
        config = ModelConfig(**json.loads(metadata["config"]))
        modalities = tuple(Modality.from_dict(m) for m in json.loads(metadata["modalities"]))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{file} does not say which model it belongs to, as weights of seamo_fast do "
            f"(config and modalities in its metadata): {error!r}"
        ) from error
    return Weights(file, config, modalities, state, metadata)


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
    return f"{len(names)} {what}" + (f" ({', '.join(names[:3])})" if names else "")
