"""A step of SeaMo's training as a user would run it, of its reference, and the bare products."""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.training.process import Answer, serve
from seamo_fast.pretrain import COMMAND
from seamo_fast.profile.variant import as_reference
from seamo_fast.training import allocator, batches, model_setup, precision
from seamo_fast.training.config import Compile, PretrainConfig
from seamo_fast.training.step import TrainingStep, step_flops
from seamo_fast.views import ViewConfig

# how a product was called: sizes and strides of both factors
Product = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Contestant:
    """A model, its training step and a batch of the demo data, of the preset `small` in float32."""

    def __init__(self, name: str, compiled: Compile, size: int, decoded: float) -> None:
        settings = [f"--data.batch_size={size}", f"--views.decode_fraction={decoded}"]
        config: PretrainConfig = COMMAND.parse(["--config", "small", *settings])[0]
        self.device = precision.choose_device("auto")
        shards = batches.open_shards(config.data.path)
        plan = batches.make_plan(config, shards)
        stage = plan.stages[-1]
        batch = next(iter(batches.make_loader(config, shards, stage)))
        views = batches.draw_views(config, batch, stage.number)
        self.batch, self.views = batch.to(self.device), views.to(self.device)
        everything = replace(config, views=ViewConfig())
        self.facts = {"flops": size * step_flops(everything, shards, stage)}
        ours = model_setup.make_model(config, shards, plan).to(self.device)
        allocator.keep_freed_memory()  # as the command does; all contestants alike
        if name == "ours":
            model_setup.compile_model(ours, compiled, self.device)
            self.model: nn.Module = ours
        else:
            self.model = as_reference(ours).to(self.device)
            if compiled != "off":
                self.model.compile(dynamic=False)
        self.train = TrainingStep(self.model, ours.count, config.optim, self.device, torch.float32)

    def step(self) -> Answer:
        """Makes a training step, as a run does."""
        losses, _ = self.train(self.model, self.batch, self.views, fusion=True, lr=1e-4)
        return {"loss": float(losses.sum())}


class Products(TorchDispatchMode):
    """Counts the matrix products that happen, and those that attention and patch embedding are."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm"):
            a, b = args[-2:]
            self._note(a, b)
        elif name == "_scaled_dot_product_flash_attention_for_cpu":
            q, k, scores = _heads(*args[:2])
            self._note(q, k.mT)
            self._note(scores, k)
        elif name == "_scaled_dot_product_flash_attention_for_cpu_backward":
            q, k, scores = _heads(*args[1:3])
            self._note(q, k.mT)
            self._note(scores, k)
            self._note(scores.mT, q)
            self._note(scores.mT, q)
        elif name == "convolution":
            patches, weight = _patches(*args[:2])
            self._note(patches, weight.mT)
        elif name == "convolution_backward":  # the gradient of the weight alone
            patches, weight = _patches(*args[1:3])
            self._note(patches.new_empty(len(patches), len(weight)).mT, patches)
        return func(*args, **(kwargs or {}))

    def _note(self, a: Tensor, b: Tensor) -> None:
        self.count[tuple(a.shape), a.stride(), tuple(b.shape), b.stride()] += 1


def _heads(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns q, k and their scores, of the shapes and strides of one matrix a head."""
    q, k = (x.flatten(0, 1).contiguous() for x in (q, k))
    return q, k, q.new_empty(*q.shape[:2], k.shape[1])


def _patches(images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns patches [count, P] and weight [D, P] of a convolution whose stride is its size."""
    weight = weight.flatten(1)
    return images.new_empty(images.numel() // weight.shape[1], weight.shape[1]), weight


class Machine:
    """The machine itself: how long the products of somebody's step take it, one by one."""

    def __init__(self, step: Callable[[], object], device: torch.device) -> None:
        with Products() as products:
            step()
        self.count = products.count
        self.device = device
        self.facts = {"flops": sum(n * _operations(product) for product, n in self.count.items())}

    def step(self) -> Answer:
        """Returns the seconds that all products took."""
        times = (n * _least_time(product, self.device) for product, n in self.count.items())
        return {"seconds": sum(times)}


def _operations(product: Product) -> int:
    a, _, b, _ = product
    return 2 * math.prod(a) * b[-1]


def _least_time(product: Product, device: torch.device) -> float:
    a, b = (
        torch.ones(_extent(shape, stride), device=device).as_strided(shape, stride)
        for shape, stride in (product[:2], product[2:])
    )
    out = torch.matmul(a, b)
    times = []
    for _ in range(3):
        precision.synchronize(device)
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
        precision.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def main() -> None:
    """Answers until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("ours", "reference", "machine"))
    parser.add_argument("compile", choices=get_args(Compile))
    parser.add_argument("batch", type=int)
    parser.add_argument("decoded", type=float, nargs="?", default=1.0)
    given = parser.parse_args()

    def make() -> Contestant | Machine:
        if given.name != "machine":
            return Contestant(given.name, given.compile, given.batch, given.decoded)
        reference = Contestant("reference", "off", given.batch, given.decoded)
        return Machine(reference.step, reference.device)

    serve(make)


if __name__ == "__main__":
    main()
