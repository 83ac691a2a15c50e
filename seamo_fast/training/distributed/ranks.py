"""The ranks of a run: the process group that `torchrun` describes, and what they exchange.

Without `torchrun` there is no process group: one rank, and every function here does nothing. What
the host needs to know travels over gloo, so that no rank waits for its GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from seamo_fast.errors import ConfigError, SeaMoError
from seamo_fast.training import precision

T = TypeVar("T")
_HOST: Final = torch.device("cpu")


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Joins the other ranks of `torchrun`; does nothing where it did not start this process.

    gloo connects CPUs, NCCL the GPUs of ranks that have one.

    Args:
        device: The setting `run.device`.

    Raises:
        ConfigError: The device does not exist here, or names one GPU for all ranks; or the
            environment is not one that `torchrun` makes.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    chosen = precision.choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    store, number, size = _meet()
    store = _fresh(store, number, size)
    dist.init_process_group(backend, store=store, rank=number, world_size=size)
    yield
    # not after an error: NCCL would wait for ranks that are gone
    dist.destroy_process_group()


def _meet() -> tuple[Store, int, int]:
    """Returns the store of all ranks, the number of this one, and how many there are."""
    try:
        number, size = (int(os.environ.get(name, "")) for name in ("RANK", "WORLD_SIZE"))
        if not 0 <= number < size:
            raise ValueError(f"RANK {number} of WORLD_SIZE {size}")
        return next(rendezvous("env://"))
    except ValueError as error:
        raise ConfigError(
            f"the environment does not describe ranks ({error}); start them with torchrun, or "
            "unset WORLD_SIZE"
        ) from error


def _fresh(store: Store, number: int, size: int) -> Store:
    """Returns a part of the store that no earlier group of these ranks has written to.

    `torchrun` keeps its store when it restarts ranks (torch 2.14), and gloo then waits for the
    addresses of ended processes. So each rank asks with a name of its process, and rank 0 answers
    with the name of the part.
    """
    mine = uuid4().hex
    store.set(f"ask/{number}", mine)
    if number:
        part = store.get(f"answer/{mine}").decode()
        store.set(f"heard/{part}/{number}", "")
        return PrefixStore(part, store)
    for other in range(1, size):
        while not store.check([f"heard/{mine}/{other}"]):
            store.set(f"answer/{store.get(f'ask/{other}').decode()}", mine)
            time.sleep(0.01)
    return PrefixStore(mine, store)


def world() -> int:
    """Returns how many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Returns whether this is rank 0, which alone writes to the run folder."""
    return rank() == 0


def restarted() -> bool:
    """Returns whether `torchrun --max-restarts` started this process after a failure."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def check_batch(batch_size: int, accumulate: int) -> None:
    """Raises ConfigError unless every rank gets as many samples in each of its micro-batches."""
    parts = world() * accumulate
    if batch_size % parts:
        raise ConfigError(
            f"data.batch_size must be a multiple of ranks x optim.accumulate = {world()} x "
            f"{accumulate} = {parts}, but got {batch_size}"
        )


@contextmanager
def raise_on_all() -> Iterator[None]:
    """Lets a block fail on all ranks if it fails on one. It must not communicate itself.

    Raises:
        SeaMoError: The block failed on another rank, which raises the error itself.
    """
    try:
        yield
    except Exception:
        largest(rank() + 1)
        raise
    failed = largest(0)
    if failed:
        raise SeaMoError(f"rank {failed - 1} has failed; its message says why")


def largest(number: int) -> int:
    """Returns the largest of the ranks' numbers."""
    if world() == 1:
        return number
    value = torch.tensor(number)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def total(tensor: Tensor) -> Tensor:
    """Returns the sum of a tensor over ranks; on a GPU without waiting for it."""
    if world() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def totals(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Returns the sums of named numbers over ranks; what is None must be so on all of them."""
    numbers = {name: value for name, value in values.items() if value is not None}
    sums = total(torch.tensor(list(numbers.values()), dtype=torch.float64)).tolist()
    return {**values, **dict(zip(numbers, sums, strict=True))}


def union(items: Iterable[T]) -> set[T]:
    """Returns what any rank has; the items must be picklable."""
    return set().union(*every(set(items)))


def every(value: T) -> list[T]:
    """Returns the values of all ranks, in their order; they must be picklable."""
    found = [value] * world()
    if world() > 1:
        dist.all_gather_object(found, value)
    return found


def from_main(value: T) -> T:
    """Returns the value of rank 0, which must be picklable."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=_HOST)
    return box[0]
