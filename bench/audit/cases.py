"""The calls that the audit looks at: every operation, in both directions, at the base shape.

What differs between operations stands in ``bench/ops``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from bench.ops import BY_NAME, OPS


class Case(NamedTuple):
    """An operation called in both directions with inputs of one kind."""

    op: str
    dtype: torch.dtype
    more: dict[str, Any]  # what ``at_base`` takes

    @property
    def inputs(self) -> str:
        """What distinguishes them: the dtype, then what is not as at the base shape."""
        words = (f"{name}={_short(value)}" for name, value in self.more.items())
        return " ".join((_short(self.dtype), *words))

    def call(self, backend: Any) -> None:
        """Calls the module of a backend; its tensors have no memory."""
        op = BY_NAME[self.op]
        x = op.at_base(self.dtype, **self.more)
        outputs = backend.forward(*x)
        if op.GRADIENTS:
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            needed = list(op.AUDITED.needed) or [True] * len(op.GRADIENTS)
            backend.backward(*op.backward_arguments(x, outputs, outputs[0], needed))


def cases(*, quick: bool = False) -> list[Case]:
    """What is called; ``quick``: in bfloat16 alone, at the base shape."""
    dtypes = (torch.bfloat16,) if quick else (torch.bfloat16, torch.float16, torch.float32)
    found = [Case(op, dtype, {}) for op in OPS for dtype in dtypes]
    return found if quick else found + _more("more")


def others() -> list[Case]:
    """More for CUDA: Triton compiles each by itself."""
    return _more("more_cuda")


def _more(name: str) -> list[Case]:
    return [
        Case(op, entry.get("dtype", torch.bfloat16), _without_dtype(entry))
        for op, module in BY_NAME.items()
        for entry in getattr(module.AUDITED, name)
    ]


def _without_dtype(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "dtype"}


def _short(value: Any) -> str:
    return str(value).removeprefix("torch.")
