"""Units at the door of a backbone: one warning a modality, and nothing else changes."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import seamo_fast
from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.shards import ShardSet
from seamo_fast.errors import DataError, UnitError
from seamo_fast.modalities import Modality, get_modality
from seamo_fast.model import ModelConfig, unit_check
from seamo_fast.model.backbone import SeaMoBackbone, seamo_vit_tiny
from seamo_fast.model.unit_check import UnitCheck
from tests.factories import make_batch
from tests.unit_warnings import said

CONFIG = ModelConfig(
    width=32, depth=2, heads=2, image_size=32, decoder_width=16, decoder_depth=1, decoder_heads=2
)
Images = dict[str, Tensor]
S2, S1 = (get_modality(name).on_one_grid(10) for name in ("s2l2a", "s1grd"))


def right(seed: int = 0, seasons: int = 1) -> Images:
    """Images [2, T, C, 32, 32] with the statistics of their modalities."""
    batch = make_batch([S2, S1], size=32, seasons=seasons, seed=seed)
    return {name: grids[0].float() for name, grids in batch.bands.items()}


def reflectance(seed: int = 0) -> Images:
    return {"s2l2a": right(seed)["s2l2a"] / 10000}


def linear(seed: int = 0) -> Images:
    return {"s1grd": 10 ** (right(seed)["s1grd"] / 10)}


def make(strict: bool = False) -> SeaMoBackbone:
    torch.manual_seed(0)
    return SeaMoBackbone(CONFIG, [S2, S1], "pooled", strict).eval()


REFLECTANCE = r"^s2l2a: values .* look like reflectance.*unit dn, offset 0.*Multiply by 10000;"
LINEAR = r"^s1grd: values .* look like linear backscatter.*unit db.*Take 10 \* log10 of them;"


def inside(context: AbstractContextManager[object], model: SeaMoBackbone, x: Images) -> Tensor:
    with context:
        return model(x)


Door = Callable[[SeaMoBackbone, Images], object]
DOORS: dict[str, Door] = {
    "forward": lambda model, x: model(x),
    "one season": lambda model, x: model({name: image[:, 0] for name, image in x.items()}),
    "intermediates": lambda model, x: model.forward_intermediates(x, [-1]),
    "training": lambda model, x: model.train()(x).sum().backward(),
    "in a module": lambda model, x: torch.nn.Sequential(model)(x),
    "autocast": lambda model, x: inside(torch.autocast("cpu", torch.bfloat16), model, x),
    "inference": lambda model, x: inside(torch.inference_mode(), model, x),
    "copy": lambda model, x: copy.deepcopy(model)(x),
    "double": lambda model, x: model.double()({name: image.double() for name, image in x.items()}),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_every_door_names_the_unit(door: Door) -> None:
    with said(REFLECTANCE):
        door(make(), reflectance())
    with said(LINEAR):
        door(make(), linear())
    with said(REFLECTANCE, LINEAR):
        door(make(), {**reflectance(), **linear()})
    with said():
        door(make(), right())


def test_a_modality_is_named_once() -> None:
    model = make()
    with said(REFLECTANCE):
        for seed in range(4):
            model({**right(seed), **reflectance(seed)})
    with said():
        model(reflectance())
    with said(REFLECTANCE):
        make()(reflectance())  # another model has not been warned


def test_the_first_two_batches_are_looked_at_and_no_more() -> None:
    for batches, expected in ((1, [REFLECTANCE]), (2, [])):
        model = make()
        with said(*expected):
            for seed in range(batches):
                model(right(seed))
            model(reflectance())


def test_batches_that_say_nothing_do_not_count_at_first() -> None:
    model = make()
    zeros = {"s2l2a": torch.zeros(2, 12, 32, 32), "s1grd": torch.zeros(2, 2, 32, 32)}
    with said(REFLECTANCE, LINEAR):
        for _ in range(3):
            model(zeros)
        model({**reflectance(), **linear()})
    model = make()
    with said():
        for _ in range(8):
            model(zeros)
        model(reflectance())


def test_what_each_wrong_unit_is_taken_for() -> None:
    x = right()
    s2, s1 = x["s2l2a"], x["s1grd"]
    mean, std = (torch.tensor(each)[:, None, None] for each in (S2.mean, S2.std))
    for image, looks in (
        ((s2 / 10000 * 255).clamp(0, 255).to(torch.uint8), "scaled to 0 to 255"),
        ((s2 - mean) / std, "look normalised already"),
        (torch.full_like(s2, torch.nan), "all 6144 values looked at are NaN or infinite"),
    ):
        with said(f"^s2l2a: .*{looks}"):
            make()({"s2l2a": image})
    for image, looks in (
        (s1.to(torch.int16), "are decibels cut to whole numbers"),
        ((s1 * 100).to(torch.int16), "look like decibels times 100"),
        (s1 - 9999 * (torch.rand(s1.shape) < 0.1), "are no decibels.*its nodata value"),
    ):
        with said(f"^s1grd: .*{looks}"):
            make()({"s1grd": image})


@pytest.mark.parametrize("fill", [-9999.0, -3.4028234663852886e38, 1e30])
def test_few_absurd_values_spoil_nothing_and_many_are_named(fill: float) -> None:
    s1 = right()["s1grd"]
    some = s1.clone()
    some[0, 0, 0, 3:6, 3] = fill
    with said():
        make()({"s1grd": some})
    with said(LINEAR):
        make()({"s1grd": torch.where(some == fill, fill, 10 ** (s1 / 10))})
    for share, looks in ((0.1, "leave out .* that are no decibels"), (0.7, "are no decibels")):
        many = s1.masked_fill(torch.rand(s1.shape) < share, fill)
        with said(f"^s1grd: .*{looks}.*Give the modality its nodata value, or make such pixels"):
            make()({"s1grd": many})
    with pytest.raises(UnitError, match="are no decibels"):
        make(strict=True)({"s1grd": torch.full_like(s1, fill)})
    with said():  # nodata is none of them
        model = SeaMoBackbone(CONFIG, [replace(S1, nodata=fill)], "pooled").eval()
        model({"s1grd": s1.masked_fill(torch.rand(s1.shape) < 0.3, fill)})


def test_groups_that_do_not_exist_are_not_looked_at() -> None:
    x = right(seasons=2)
    x["s2l2a"][:, 1] = torch.rand(2, 12, 32, 32)
    x["s1grd"][0] = torch.nan
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[:, 1, 0] = False
    valid[0, :, 1] = False
    with said():
        make()(x, valid=valid)
    with said():
        make()({"s2l2a": torch.rand(2, 12, 8, 8)}, valid=torch.zeros(2, 1, 1, dtype=torch.bool))


def test_strict_is_an_error_until_the_values_are_right() -> None:
    model = make(strict=True)
    for _ in range(3):
        with said(), pytest.raises(UnitError, match=REFLECTANCE) as caught:
            model(reflectance())
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, DataError)
        assert caught.value.kind == "unit"
    expected = make()(right())
    assert torch.equal(model(right()), expected)
    with pytest.raises(UnitError, match="linear backscatter"):
        model.forward_intermediates(linear())
    lenient = make()
    lenient.unit_check.strict = True
    with pytest.raises(UnitError):
        lenient(linear())
    with pytest.raises(UnitError):
        seamo_vit_tiny(strict=True, modalities=["s1grd"])(linear())


def test_it_can_be_silenced_or_made_an_error_by_pythons_filters() -> None:
    assert issubclass(seamo_fast.UnitWarning, UserWarning)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=seamo_fast.UnitWarning)
        make()(reflectance())
    assert not seen
    with warnings.catch_warnings():
        warnings.simplefilter("error", seamo_fast.UnitWarning)
        with pytest.raises(seamo_fast.UnitWarning):
            make()(reflectance())


def test_the_warning_points_at_the_users_line() -> None:
    for call in (make(), make().forward_intermediates):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call(reflectance())
        assert [each.filename for each in seen] == [__file__]


def test_values_are_the_same_to_the_bit() -> None:
    def features(model: SeaMoBackbone) -> list[Tensor]:
        torch.manual_seed(3)
        found = [model(x) for x in (right(), right(1), reflectance(), linear())]
        found[0].square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return [*found, *gradients, torch.rand(3)]

    blind, model = make(), make()
    blind.unit_check = lambda *_: None  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = zip(features(model), features(blind), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_copies_and_pickles_remember_and_weights_know_nothing() -> None:
    model, fresh = make(), make()
    with said(REFLECTANCE):
        model(reflectance())
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for again in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ):
        with said(LINEAR):
            again({**reflectance(), **linear()})
    with said(LINEAR):
        model(linear())  # the copies have their own memory
    assert list(model.state_dict()) == list(fresh.state_dict())
    assert len(list(model.buffers())) == len(list(fresh.buffers()))
    fresh.load_state_dict(model.state_dict())
    with said(REFLECTANCE):
        fresh(reflectance())


def test_an_adapted_modality_is_judged_by_its_new_description() -> None:
    names = ("B4", "B3", "B2")
    chosen = [S2.band_names.index(name) for name in names]
    rgb = replace(S2.subset(names), unit="reflectance", scale=1.0, nodata=None).with_statistics(
        (0.13, 0.11, 0.09), (0.13, 0.12, 0.11), "test"
    )
    model = make()
    with said():
        for seed in range(2):
            model(right(seed))
    model.adapt("s2l2a", rgb)
    with said():
        model({"s2l2a": reflectance()["s2l2a"][:, :, chosen]})
    with said(r"^s2l2a: .* look like digital numbers.*unit reflectance"):
        model({"s2l2a": right()["s2l2a"][:, :, chosen]})


class Slow:
    """A copy that arrives when the test says so."""

    there = False

    def __init__(self, tensor: Tensor) -> None:
        self.values = tensor

    def has_arrived(self) -> bool:
        return Slow.there


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tensors on the CPU be taken for tensors on a GPU, whose copies take their time."""
    monkeypatch.setattr(unit_check, "_Copy", Slow)
    monkeypatch.setattr(unit_check, "_is_asynchronous", lambda _: True)
    monkeypatch.setattr(Slow, "there", False)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    with said():
        for _ in range(5):
            model(reflectance())
        model(linear())
    monkeypatch.setattr(Slow, "there", True)
    with said(REFLECTANCE):
        for _ in range(2):  # the batch before is judged
            model({"s2l2a": right()["s2l2a"]})
    with said(LINEAR):
        model({"s1grd": right()["s1grd"]})
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with said():
            again({**reflectance(), **linear()})


@pytest.mark.usefixtures("gpu")
def test_right_batches_on_a_gpu_end_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "there", True)
    measured: list[Tensor] = []

    def count(*arguments: Tensor) -> Tensor:
        measured.append(arguments[0])
        return measure(*arguments)

    measure = unit_check._measure
    monkeypatch.setattr(unit_check, "_measure", count)
    model = make()
    with said():
        for _ in range(5):
            model({"s2l2a": right()["s2l2a"]})
        model(reflectance())
    assert len(measured) == 2


@pytest.mark.usefixtures("gpu")
def test_what_is_on_its_way_is_not_copied_and_strict_waits() -> None:
    model = make()
    with said():
        model(reflectance())
    again = copy.deepcopy(model)
    assert again.unit_check._coming == {}
    assert len(model.unit_check._coming) == 1
    pickle.dumps(model)
    with pytest.raises(UnitError):
        make(strict=True)(reflectance())


def test_compiled_programs_do_not_look_and_do_not_break() -> None:
    model = make()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with said():
        came = compiled(reflectance())
        compiled(right())
    with said(REFLECTANCE):
        torch.testing.assert_close(came, model(reflectance()))
    strict = torch.compile(make(strict=True), fullgraph=True, backend="eager")
    strict(reflectance())


def test_an_exported_program_is_as_before() -> None:
    model = make()
    x = reflectance()
    for strict in (False, True):
        with said():
            program = torch.export.export(model, (x,), strict=strict)
        names = {str(node.target) for node in program.graph.nodes}
        assert not any("isfinite" in name or "is_nonzero" in name for name in names)
        with said():
            came = program.module()(x)
    with said(REFLECTANCE):
        torch.testing.assert_close(came, model(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_transforms_and_fake_tensors_are_not_looked_at() -> None:
    check = UnitCheck(strict=True)
    image = torch.rand(3, 2, 1, 12, 8, 8)

    def inside(each: Tensor) -> Tensor:
        check(S2, each)
        return each.sum()

    torch.func.vmap(inside)(image)
    torch.func.grad(inside)(image[0])
    one = image[0]
    with torch._subclasses.FakeTensorMode() as mode:
        inside(mode.from_tensor(one))
    inside(image[0].to("meta"))
    torch.jit.trace(inside, image[0], check_trace=False)
    inside(image[0, :0])
    inside(image[0, :, :, :, :0])
    with pytest.raises(UnitError):
        inside(image[0])
    with torch.device("cpu"), pytest.raises(UnitError):
        inside(image[0])


def test_ddp_looks_like_its_module(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = DistributedDataParallel(make(), find_unused_parameters=True)
        with said(REFLECTANCE):
            for _ in range(2):
                model(reflectance()).sum().backward()
    finally:
        torch.distributed.destroy_process_group()


def whole(grids: list[np.ndarray], modality: Modality) -> Tensor:
    """Tiles of native grids [T, Cg, Hg, Wg] as [1, T, C, H, W], pixels repeated."""
    finest = grids[0].shape[-2:]
    parts = [F.interpolate(torch.from_numpy(grid.astype(np.float32)), finest) for grid in grids]
    return torch.cat(parts, 1)[None, :, list(modality.order)]


def look_at_tiles(name: str, images: Tensor, modalities: Mapping[str, Modality]) -> None:
    """Looks at all seasons together and alone, as each of the modalities; any doubt is an error."""
    for release, modality in modalities.items():
        for tiles in (images, *images.split(1, dim=1)):
            try:
                UnitCheck(strict=True)(modality, tiles)
            except UnitError as error:
                raise AssertionError(f"{name}, {release}") from error


@pytest.mark.parametrize(
    ("folder", "layout"),
    [("ssl4eo_s12_v1", None), ("worldcereal_belgium", "worldcereal"), ("terramesh", "terramesh"),
     ("sen12ms_cr", "sen12ms_cr"), ("demo", None)],
)  # fmt: skip
def test_real_tiles_that_were_packed_are_right(
    folder: str, layout: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if folder == "demo":
        path = demo_shards(tmp_path, samples=16, size=48)
    else:
        source = open_source(request.getfixturevalue("data_dir") / folder, mapping=layout)
        path = tmp_path / "shards"
        pack(source, path)
    shards = ShardSet(path)
    for number in range(len(shards)):
        sample = shards.read(number)
        for column, modality in enumerate(shards.modalities):
            tiles = whole(sample.bands[modality.name], modality)[:, sample.valid[:, column]]
            if not tiles.numel():
                continue
            described = {"measured": modality.on_one_grid(10)}
            if modality.name in ("s2l2a", "s2l1c", "s1grd"):
                releases = ("ssl4eo-s12-v1.0", "ssl4eo-s12-v1.1")
                described.update({r: get_modality(modality.name, r) for r in releases})
            look_at_tiles(f"{folder} {number} {modality.name}", tiles, described)


def test_real_tiles_in_other_units_are_not(data_dir: Path) -> None:
    found = 0
    source = open_source(data_dir / "ssl4eo_s12_v1")
    for reading in source.read(source.items()[0]):
        for name, wrong in (
            ("s2l2a", (lambda v: v / 1e4, lambda v: (v / 1e4 * 255).clamp(max=255))),
            ("s1grd", (lambda v: 10 ** (v / 10), torch.round, lambda v: (100 * v).round())),
        ):
            modality = get_modality(name)
            kept = np.array(reading.valid[name])
            tiles = whole([grid[kept] for grid in reading.arrays[name]], modality)
            for change, tile in product(wrong, tiles.split(1, dim=1)):
                with pytest.raises(UnitError):
                    UnitCheck(strict=True)(modality, change(tile))
                found += 1
    assert found
