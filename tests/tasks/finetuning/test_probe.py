"""The linear head that is fitted at once gives what the probe gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seamo_fast.tasks.finetuning.batches import Batch
from seamo_fast.tasks.finetuning.fit import probe as fitting
from seamo_fast.tasks.finetuning.fit.probe import fit_head
from seamo_fast.tasks.probes.linear import Probe
from tests.tasks.finetuning.task_models import place, task_model


@pytest.mark.parametrize("seasons", [1, 3])
def test_the_head_gives_the_logits_of_the_probe(
    seasons: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64 over the groups that exist, one after the other."""
    model = task_model(seasons=seasons, spread=0.0)
    images, dates, valid = place(batch=5, seasons=seasons)
    valid[1, 0, 0] = valid[2, -1, 2] = False
    batch = Batch(images, valid, dates, torch.tensor([0, 1, 2, 1, 0]), torch.arange(5))
    given: list[Tensor] = []
    probes: list[Probe] = []

    def fit(train: tuple[Tensor, Tensor], *_: Any) -> Probe:
        given.append(train[0])
        probes.append(Probe(torch.randn(3, train[0].shape[1]), torch.randn(3), 0.1, 1.0))
        return probes[-1]

    monkeypatch.setattr(fitting, "fit_probe", fit)
    before = {name: t.clone() for name, t in model.backbone.state_dict().items()}
    chosen = fit_head(model, [batch], [batch], torch.float32)  # type: ignore[arg-type]
    assert chosen == {"penalty": 0.1}
    assert all(torch.equal(t, before[name]) for name, t in model.backbone.state_dict().items())
    tokens = model.features(images, dates, valid).levels[-1].double().mean(dim=3)
    taken = valid[:, :, [2, 0]]  # radar, then optic, as the model's channels say
    expected = torch.zeros(5, seasons, tokens.shape[-1], dtype=torch.float64)
    for item in range(5):
        for t in range(seasons):
            for m in range(2):
                if taken[item, t, m]:
                    expected[item, t] += tokens[item, t, m] / int(taken[item].sum())
    torch.testing.assert_close(given[0], expected.flatten(1).float())
    logits = expected.flatten(1) @ probes[0].weight.double().T + probes[0].bias
    torch.testing.assert_close(model(images, dates, valid).double(), logits, rtol=1e-4, atol=1e-5)
