"""Full finetuning: all parameters of a classifier, validation chooses the epoch."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.randomness import generator
from seamo_fast.tasks.classifier import Classifier, predict
from seamo_fast.tasks.config import FinetuneConfig
from seamo_fast.tasks.samples import Samples
from seamo_fast.training.config import OptimConfig
from seamo_fast.training.optimizer import decays
from seamo_fast.training.precision import autocast
from seamo_fast.training.schedule import learning_rate

_LOG = logging.getLogger(__name__)


class Epoch(NamedTuple):
    """What one pass over the training images gave."""

    number: int
    loss: float
    val_accuracy: float
    val_loss: float


def finetune(
    model: Classifier, train: Samples, val: Samples, config: FinetuneConfig, dtype: torch.dtype
) -> tuple[Epoch, list[Epoch]]:
    """Trains with AdamW, warm-up and cosine, layer-wise learning rates, flips and label smoothing.

    The recipe of MAE and SpectralGPT without mixing and dropping. The epoch with the best
    validation accuracy is taken, of equals the one with the least validation loss; the model ends
    with its weights. Order and flips follow from the seed.

    Args:
        model: On its device.
        train: Training images.
        val: Validation images.
        config: Settings.
        dtype: Of matrix products.

    Returns:
        The epoch taken, and all.

    Raises:
        ConfigError: The loss is no longer finite.
        DataError: There are no training or no validation images.
    """
    if not len(train) or not len(val):
        raise DataError(f"{len(train)} training and {len(val)} validation images; both need some")
    rates = OptimConfig(blr=config.blr, weight_decay=config.weight_decay)
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.blr, fused=True)
    epochs: list[Epoch] = []
    best, best_state = None, {}
    steps_each = -(-len(train) // config.batch_size)
    for number in range(config.epochs):
        start, total = time.perf_counter(), torch.zeros((), dtype=torch.float64)
        model.train()
        for step, (images, labels) in enumerate(batches(train, config, number)):
            at = number * steps_each + step
            rate = learning_rate(at, config.epochs * steps_each, rates, config.batch_size)
            loss = _step(model, optimizer, images, labels, rate, config, dtype)
            total = total.to(loss.device) + len(labels) * loss  # the last batch may be smaller
        epoch = _judge(model, val, number + 1, total.item() / len(train), dtype)
        epochs.append(epoch)
        if best is None or _merit(epoch) > _merit(best):
            best, best_state = epoch, copy.deepcopy(model.state_dict())
        _LOG.info(
            f"epoch {epoch.number}/{config.epochs}  loss {epoch.loss:.4f}  validation accuracy "
            f"{epoch.val_accuracy:.4f}  {time.perf_counter() - start:.1f} s"
        )
    assert best is not None
    model.load_state_dict(best_state)
    return best, epochs


def parameter_groups(model: Classifier, config: FinetuneConfig) -> list[dict[str, object]]:
    """Returns optimiser groups: each layer's learning-rate factor, with and without decay.

    The head and the final norm have factor 1, each block before them `layer_decay` times the next,
    the embeddings the least (Clark et al., ELECTRA, 2020).
    """
    depth = model.backbone.config.depth
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        name = name.removeprefix("backbone.")
        groups.setdefault((_layer(name, depth), decays(name, parameter)), []).append(parameter)
    return [
        {
            "params": parameters,
            "factor": config.layer_decay ** (depth + 1 - layer),
            "weight_decay": config.weight_decay if decaying else 0.0,
        }
        for (layer, decaying), parameters in groups.items()
    ]


def _layer(name: str, depth: int) -> int:
    if name.startswith("encoder.blocks."):
        return 1 + int(name.split(".")[2])
    return depth + 1 if name.startswith(("encoder.norm.", "head.")) else 0


def batches(train: Samples, config: FinetuneConfig, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields an epoch's images, flipped along either axis with probability 1/2, and labels."""
    rng = generator(config.seed, "finetune", epoch)
    order = torch.from_numpy(rng.permutation(len(train)))
    flips = torch.from_numpy(rng.random((2, len(train))) < 0.5)
    for numbers in order.split(config.batch_size):
        images = train.images[numbers]
        for axis in (0, 1):
            chosen = flips[axis, numbers][:, None, None, None]
            images = torch.where(chosen, images.flip(2 + axis), images)
        yield images, train.labels[numbers]


def _step(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    rate: float,
    config: FinetuneConfig,
    dtype: torch.dtype,
) -> Tensor:
    device = model.head.weight.device
    with autocast(device, dtype):
        logits = model(images.to(device))
    loss = F.cross_entropy(
        logits.float(), labels.to(device), label_smoothing=config.label_smoothing
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.step()
    return loss.detach()


def _judge(model: Classifier, val: Samples, number: int, loss: float, dtype: torch.dtype) -> Epoch:
    logits = predict(model, val.images, dtype)
    val_loss = F.cross_entropy(logits, val.labels).item()
    if not (loss < float("inf") and val_loss < float("inf")):
        raise ConfigError(f"the loss is not finite in epoch {number}; lower blr")
    accuracy = (logits.argmax(dim=1) == val.labels).double().mean().item()
    return Epoch(number, loss, accuracy, val_loss)


def _merit(epoch: Epoch) -> tuple[float, float]:
    return epoch.val_accuracy, -epoch.val_loss
