"""The classifier: what it saves can be read as a classifier and as a backbone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seamo_fast.checkpoint_files import read_tensors
from seamo_fast.errors import CheckpointError
from seamo_fast.modalities import S1GRD
from seamo_fast.model import PRESETS
from seamo_fast.model.backbone import SeaMoBackbone, seamo_vit_tiny
from seamo_fast.model.weights import model_metadata
from seamo_fast.tasks.classifier import Classifier, predict
from seamo_fast.tasks.datasets.eurosat import EUROSAT_RGB

RGB = EUROSAT_RGB.with_statistics((90.0, 95.0, 100.0), (40.0, 30.0, 20.0), "test")
CONFIG = replace(PRESETS["tiny"], depth=2, image_size=16, fusion="none")


@pytest.fixture
def model() -> Classifier:
    model = Classifier(SeaMoBackbone(CONFIG, [RGB], "pooled"), ["Forest", "River"])
    torch.nn.init.normal_(model.head.weight)
    return model


def test_logits_are_a_linear_map_of_pooled_features(model: Classifier) -> None:
    images = torch.randint(0, 255, (3, 3, 16, 16)).to(torch.uint8)
    pooled = model.backbone({"eurosat_rgb": images})
    expected = pooled @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), expected)
    many = images.repeat(100, 1, 1, 1)
    logits = predict(model.train(), many, torch.float32)
    torch.testing.assert_close(logits, expected.detach().repeat(100, 1))
    torch.testing.assert_close(
        predict(model, many, torch.float32, head=False), pooled.detach().repeat(100, 1)
    )
    assert not logits.requires_grad


def test_a_saved_classifier_comes_back(model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = Classifier.load(path)
    assert again.classes == ("Forest", "River")
    assert again.backbone.modalities == model.backbone.modalities
    images = torch.randint(0, 255, (3, 3, 16, 24)).to(torch.uint8)
    assert torch.equal(again(images), model(images))


def test_its_backbone_is_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    preset = replace(PRESETS["tiny"], fusion="none")
    model = Classifier(SeaMoBackbone(preset, [RGB], "pooled"), ["Forest", "River"])
    path = tmp_path / "model.safetensors"
    model.save(path)
    backbone = seamo_vit_tiny(path, output="pooled")
    images = {"eurosat_rgb": torch.randint(0, 255, (1, 3, 16, 16)).to(torch.uint8)}
    assert torch.equal(backbone(images), model.backbone(images))
    backbone_only = {k: v for k, v in backbone.state_dict().items() if k.startswith("head")}
    assert backbone_only == {}


def test_what_is_no_classifier_is_refused(model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(model.backbone.state_dict(), path, model_metadata(CONFIG, [RGB]))
    with pytest.raises(CheckpointError, match="holds no classifier"):
        Classifier.load(path)
    with pytest.raises(ValueError, match=r"one modality with output 'pooled'.*'tokens'"):
        Classifier(SeaMoBackbone(CONFIG, [RGB]), ["Forest"])
    with pytest.raises(ValueError, match="eurosat_rgb, s1grd"):
        Classifier(SeaMoBackbone(CONFIG, [RGB, S1GRD], "pooled"), ["Forest"])


@pytest.mark.parametrize(
    ("classes", "change", "message"),
    [
        ("[", {}, "its classes are damaged"),
        ("{}", {}, "its classes are {}; expected names"),
        ("[1, 2]", {}, r"its classes are \[1, 2\]; expected names"),
        ('["a", "b", "c"]', {}, r"head.weight is of shape \[2, 192\]; expected \[3, 192\]"),
        (json.dumps(["a"] * 10**6), {}, r"expected \[1000000, 192\]"),
        (None, {"head.weight": None}, r"head.weight is missing; expected \[2, 192\]"),
        (None, {"head.bias": None}, r"head.bias is missing; expected \[2\]"),
        (None, {"head.bias": torch.zeros(3)}, r"head.bias is of shape \[3\]; expected \[2\]"),
        (None, {"head.bias": torch.full((2,), torch.nan)}, "head.bias holds NaN or infinite"),
    ],
)
def test_heads_of_strangers_are_refused(
    model: Classifier,
    tmp_path: Path,
    classes: str | None,
    change: dict[str, torch.Tensor | None],
    message: str,
) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    state, metadata = read_tensors(path)
    found = {**state, **change}
    save_file(
        {name: value for name, value in found.items() if value is not None},
        path,
        metadata if classes is None else {**metadata, "classes": classes},
    )
    with pytest.raises(CheckpointError, match=message):
        Classifier.load(path)


def test_a_head_on_two_modalities_is_refused(model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    backbone = SeaMoBackbone(CONFIG, [RGB, S1GRD])
    head = {"head.weight": torch.zeros(1, 192), "head.bias": torch.zeros(1)}
    metadata = model_metadata(CONFIG, backbone.modalities)
    save_file({**backbone.state_dict(), **head}, path, {**metadata, "classes": '["a"]'})
    with pytest.raises(CheckpointError, match="a classifier needs a backbone of one modality"):
        Classifier.load(path)


def test_a_failed_write_leaves_nothing_behind(model: Classifier, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="could not be written"):
        model.save(tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
