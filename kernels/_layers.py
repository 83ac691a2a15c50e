"""Where a kernel may compute what layers would, and where the layers themselves have to run."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from . import _torch_private

Layer = TypeVar("Layer", bound=type[nn.Module])

_replaceable: list[type[nn.Module]] = [nn.LayerNorm, nn.Linear]


def replaceable(layer: Layer) -> Layer:
    """Class decorator: kernels know what layers of this class compute, and may do it for them."""
    _replaceable.append(layer)
    return layer


def are_as_built(*layers: Any) -> bool:
    """Returns whether a kernel may stand in for these layers.

    Not where one is of another class, such as an adapter in the place of a layer, has a hook or a
    ``forward`` of its own, or lacks its bias.
    """
    return (
        all(
            type(layer) in _replaceable
            and "forward" not in layer.__dict__
            and getattr(layer, "bias", True) is not None
            and not (
                layer._forward_hooks
                or layer._forward_pre_hooks
                or layer._backward_hooks
                or layer._backward_pre_hooks
            )
            for layer in layers
        )
        and not _torch_private.may_have_global_hooks()
    )
