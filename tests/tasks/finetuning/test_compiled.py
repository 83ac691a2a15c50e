"""Regional torch.compile of a model that is finetuned: no graph break, nothing compiled later."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from seamo_fast.tasks.finetuning import methods
from seamo_fast.tasks.finetuning.methods import Method
from seamo_fast.training.model_setup import compile_model
from tests.tasks.finetuning.task_models import place, task_model

counters = torch._dynamo.utils.counters


@pytest.fixture(autouse=True)
def own_counters() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("method", "rate", "backend"),
    [
        ("full", 0.5, "aot_eager"),
        pytest.param("frozen", 0.0, "inductor", marks=pytest.mark.slow),
        pytest.param("lora", 0.5, "aot_eager", marks=pytest.mark.slow),
        pytest.param("lora", 0.5, "inductor", marks=pytest.mark.slow),
        pytest.param("full", 0.5, "inductor", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_compiled_after_the_first_epoch(
    method: Method, rate: float, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training steps and evaluation, in turn; logits are those without a compiler."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **o: compile_module(self, backend=backend, **o)
    )
    model, plain = task_model("fpn", "mask"), task_model("fpn", "mask")
    for each in (model, plain):
        methods.choose_parameters(each.backbone, method)
    compile_model(model, "regional", torch.device("cpu"))
    groups = methods.parameter_groups(model.backbone, model.head, 0.7, 0.05)
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    programs = []
    for epoch in range(3):
        model.train()
        for step in range(2):
            rngs = [np.random.default_rng((epoch, step, item)) for item in range(3)]
            scales = methods.drop_path(model.backbone, rate, rngs)
            given = place(seed=step)
            logits = model(*given, scales)
            if not programs:
                expected = plain.train()(*given, scales)
                torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
            logits.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            programs.append(counters["stats"]["unique_graphs"])
        model.eval()
        with torch.no_grad():
            model(*place(seed=9))
        programs.append(counters["stats"]["unique_graphs"])
    assert counters["graph_break"] == {}
    assert programs[0] > 0
    assert programs[2:] == [programs[2]] * (len(programs) - 2)
