"""Hugging Face's ViTMAE and ours are the same model, but for ViTMAE's class token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("transformers", reason="transformers is not installed")

from bench.training import vitmae
from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.profile.variant import as_reference

SMALL = replace(
    vitmae.CONFIG, width=32, depth=2, heads=2, image_size=32, patch_size=8,
    decoder_width=16, decoder_depth=2, decoder_heads=2,
)  # fmt: skip
# what each layer of a block is called there
LAYERS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
ENDS = {
    "encoder.norm": "vit.layernorm",
    "decoders.rgb.embed": "decoder.decoder_embed",
    "decoders.rgb.norm": "decoder.decoder_norm",
}


def pair(config: ModelConfig) -> tuple[SeaMo, Any]:
    """Ours and theirs with the same weights, theirs without a class token."""
    torch.manual_seed(0)
    ours, theirs = SeaMo(config, [vitmae.RGB]), vitmae.huggingface(config)
    nn.init.zeros_(ours.modality_embed["rgb"])  # they have one kind of image
    for ending, values in ours.named_buffers():
        if ending == "table":
            theirs.vit.embeddings.position_embeddings.data[0, 1:] = values
        elif ending == "decoders.rgb.table":
            theirs.decoder.decoder_pos_embed.data[0, 1:] = values
    theirs.load_state_dict(renamed(dict(ours.state_dict()), config), strict=False)
    without_class_token(theirs)
    return ours, theirs


def renamed(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our parameters, or their gradients, by ViTMAE's names and in its layout."""
    found = {}
    for end in ("weight", "bias"):
        found |= {f"{theirs}.{end}": state[f"{ours}.{end}"] for ours, theirs in ENDS.items()}
        found[f"vit.embeddings.patch_embeddings.projection.{end}"] = state[f"patch_embed.rgb.{end}"]
        # a predicted patch has its bands last there
        head = state[f"decoders.rgb.head.{end}"].unflatten(0, (3, config.patch_size, -1))
        found[f"decoder.decoder_pred.{end}"] = head.movedim(0, 2).flatten(0, 2)
        for part, prefix, depth in (
            ("encoder.blocks", "vit.layers", config.depth),
            ("decoders.rgb.blocks", "decoder.decoder_layers", config.decoder_depth),
        ):
            for number in range(depth):
                ours, theirs = f"{part}.{number}", f"{prefix}.{number}"
                for name, other in LAYERS.items():
                    found[f"{theirs}.{other}.{end}"] = state[f"{ours}.{name}.{end}"]
                thirds = state[f"{ours}.attn.qkv.{end}"].chunk(3)
                for name, third in zip("qkv", thirds, strict=True):
                    found[f"{theirs}.attention.{name}_proj.{end}"] = third
    found["decoder.mask_token"] = state["decoders.rgb.mask_token"][None, None]
    return found


def without_class_token(theirs: Any) -> None:
    """Takes the class token out before the blocks of encoder and decoder."""

    def dropped(x: Tensor) -> Tensor:
        return x[:, 1:]

    def added(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], x], dim=1)

    embeddings, decoder = theirs.vit.embeddings, theirs.decoder
    embeddings.register_forward_hook(lambda _, given, out: (dropped(out[0]), *out[1:]))
    decoder.register_forward_pre_hook(lambda _, given: (added(given[0]), *given[1:]))
    decoder.decoder_layers[0].register_forward_pre_hook(
        lambda _, given: (dropped(given[0]), *given[1:])
    )
    decoder.decoder_norm.register_forward_hook(lambda _, given, out: added(out))


def test_losses_and_gradients_agree() -> None:
    ours, theirs = pair(SMALL)
    batch, drawn = vitmae.make_batch(SMALL, 3)
    mine = ours(batch, drawn).total
    other = theirs(batch.bands["rgb"][0][:, 0], noise=vitmae.noise_of(drawn)).loss
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=0)
    mine.backward()
    other.backward()
    found = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    grads = {
        n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in ours.named_parameters()
    }
    expected = renamed(grads, SMALL)
    assert expected.keys() == found.keys() - {"vit.embeddings.cls_token"}
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-6, msg=name)


def test_the_race_is_between_models_of_one_size() -> None:
    ours, theirs = pair(vitmae.CONFIG)
    trained = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    # a class token there, an embedding of the modality here
    assert trained == sum(p.numel() for p in ours.parameters())
    batch, drawn = vitmae.make_batch(vitmae.CONFIG, 1)
    # the fused attention of the CPU hides its products from the counter
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        with FlopCounterMode(display=False) as other:
            theirs(batch.bands["rgb"][0][:, 0], noise=vitmae.noise_of(drawn))
        with FlopCounterMode(display=False) as mine:
            as_reference(ours)(batch, drawn)
    assert mine.get_total_flops() == pytest.approx(other.get_total_flops(), rel=0.001)
