"""Names of torch that are not public, which eager mode without the dispatcher depends on.

They say whether something beside autograd has to see an operation. Where a torch lacks one, the
answer is yes: the dispatcher and the layers themselves run, which is slower and as right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import has_torch_function

NAMES = (
    "torch._C._len_torch_dispatch_stack",
    "torch._C._functorch.peek_interpreter_stack",
    "torch._C._autograd._profiler_enabled",
    "torch._C._len_torch_function_stack",
    "torch._C._is_tracing",
    "torch.autograd.forward_ad._current_level",
    "torch.nn.modules.module._has_any_global_hook",
)


def _find(name: str) -> Any:
    """What torch has by this name; None if it has nothing."""
    found: Any = torch
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    return found


MISSING = tuple(name for name in NAMES if _find(name) is None)

_dispatch_modes, _transforms, _profiled, _function_modes, _tracing, _, _global_hooks = (
    _find(name) for name in NAMES
)
_forward_ad: Any = torch.autograd.forward_ad


def is_profiled() -> bool:
    """Whether a profiler is running, or may be."""
    return bool(MISSING) or _profiled()


def is_traced(arguments: Sequence[Any]) -> bool:
    """Whether a mode, a transform, a tracer or a subclass of Tensor has to see an operation."""
    return (
        bool(MISSING)
        or _dispatch_modes() > 0
        or _transforms() is not None
        or _function_modes() > 0
        or has_torch_function(arguments)
        or _tracing()
    )


def has_numbers(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor can be read: nothing traces, transforms or fakes it."""
    return not (
        MISSING
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
        or tensor.is_meta
        or _dispatch_modes() > 0
        or _transforms() is not None
        or _tracing()
    )


def may_have_tangents() -> bool:
    """Whether derivatives in forward mode are being found, or may be."""
    return getattr(_forward_ad, "_current_level", 0) >= 0


def may_have_global_hooks() -> bool:
    """Whether there are hooks on all modules, or may be."""
    return _global_hooks is None or _global_hooks()


def raw_stream(device: int) -> int:
    """The current stream of a CUDA device, as a number."""
    find: Callable[[int], int] | None = _find("torch._C._cuda_getCurrentRawStream")
    return torch.cuda.current_stream(device).cuda_stream if find is None else find(device)
