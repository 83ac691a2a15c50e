"""A backbone with a linear head that tells the class of an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from seamo_fast.errors import CheckpointError
from seamo_fast.files import brief, parse_json, replacing, shown
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.weights import Weights, model_metadata, read_weights
from seamo_fast.training.precision import autocast

_EVALUATED_AT_ONCE = 128


class Classifier(nn.Module):
    """Logits from pooled features of one modality at one season.

    Attributes:
        classes: Names of the classes.

    Args:
        backbone: Its output must be `pooled`, and it must have one modality.
        classes: Names of the classes.
    """

    def __init__(self, backbone: SeaMoBackbone, classes: Sequence[str]) -> None:
        super().__init__()
        if backbone.output != "pooled" or len(backbone.modalities) != 1:
            names = ", ".join(modality.name for modality in backbone.modalities)
            raise ValueError(
                "a classifier needs a backbone of one modality with output 'pooled', but got "
                f"{names} with output {backbone.output!r}"
            )
        self.backbone = backbone
        self.classes = tuple(classes)
        self.head = nn.Linear(backbone.embed_dim, len(classes))
        # as MAE does for finetuning
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def features(self, images: Tensor) -> Tensor:
        """Returns pooled features [B, D] of images [B, C, H, W], stored values."""
        return self.backbone({self.backbone.modalities[0].name: images})

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits [B, classes] of images [B, C, H, W], stored values."""
        return self.head(self.features(images))

    def save(self, path: Path) -> None:
        """Writes the weights, whole or not at all; `load` and every `checkpoint=` read them back.

        Raises:
            CheckpointError: The disk is full or not writable.
        """
        state = {**self.backbone.state_dict(), **_prefixed("head", self.head)}
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        metadata = model_metadata(self.backbone.config, self.backbone.modalities)
        try:
            with replacing(path) as temporary:
                save_file(state, temporary, {**metadata, "classes": json.dumps(self.classes)})
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} could not be written: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: The file is damaged, or holds no classifier.
        """
        weights = read_weights(path)
        classes = _classes(weights)
        backbone = SeaMoBackbone.from_checkpoint(weights, output="pooled")
        try:
            model = cls(backbone, classes)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        model.head.load_state_dict(
            {name: weights.state[f"head.{name}"] for name in ("weight", "bias")}
        )
        return model


def _classes(weights: Weights) -> list[str]:
    """Returns the names of the classes that a file's head has.

    Raises:
        CheckpointError: There are none, or the head is not one of so many classes.
    """
    path = weights.path
    if "classes" not in weights.metadata:
        raise CheckpointError(f"{path} holds no classifier; `save` writes one")
    try:
        classes = parse_json(weights.metadata["classes"])
    except ValueError as error:
        raise CheckpointError(f"{path}: its classes are damaged ({brief(error)})") from error
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise CheckpointError(f"{path}: its classes are {shown(classes)}; expected names")
    expected = {"head.weight": (len(classes), weights.config.width), "head.bias": (len(classes),)}
    for name, shape in expected.items():
        found = weights.state.get(name)
        if found is None or found.shape != shape:
            came = "missing" if found is None else f"of shape {list(found.shape)}"
            raise CheckpointError(f"{path}: {name} is {came}; expected {list(shape)}")
    return classes


def predict(model: Classifier, images: Tensor, dtype: torch.dtype, head: bool = True) -> Tensor:
    """Returns logits, or features, of many images in evaluation mode, float32 on the CPU.

    Args:
        model: On its device.
        images: [n, C, H, W], stored values.
        dtype: Of matrix products.
        head: Logits [n, classes]; else features [n, D].
    """
    device = model.head.weight.device
    function = model if head else model.features
    model.eval()
    with torch.no_grad(), autocast(device, dtype):
        parts = [function(part.to(device)).float() for part in images.split(_EVALUATED_AT_ONCE)]
    return torch.cat(parts).cpu()


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
