"""Settings and mappings: YAML files, and what a command line says."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
import yaml

from seamo_fast import finetune, pretrain
from seamo_fast.cli import Command
from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.training.config import PretrainConfig, to_dict
from seamo_fast.training.dry_run import dry_run as plan_of
from tests.attack import trees
from tests.attack.ground import Ground
from tests.attack.isolate import Attack, command
from tests.attack.series import SERIES

BOMB: Final = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
TEXTS: Final = (
    BOMB,
    "data: !!python/object/apply:os.system ['touch pwned']\n",
    "data: &a {path: *a}\n",
    "run: &r\n  seed: 1\n  <<: *r\n",
    "- data\n- model\n",
    "model\n",
    "7\n",
    "null\n",
    "? {a: b}\n: c\n",
    "1: 2\n",
    "run: {seed: 99999999999999999999999999}\n",
    "run: {seed: 2020-01-01}\n",
    "run: {seed: 0x10}\n",
    "run: {folder: 1e400}\n",
    "data: {batch_size: 4}\ndata: {batch_size: 8}\n",
    "run:\nmodel:\n",
    "run: []\n",
    "run: [1, 2]\n",
    "schedule: {stages: [null]}\n",
    "schedule: {stages: {a: 1}}\n",
    "schedule: {modalities: [s2l2a, s2l2a]}\n",
    "model: {width: [16]}\n",
)


def pretraining(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A configuration of pretraining with something wrong."""
    whole = to_dict(PretrainConfig())
    tree = {name: {**whole[name], **ground.settings.get(name, {})} for name in whole}
    text, what = _text(rng, tree)
    found: list[PretrainConfig] = []

    def action(config: PretrainConfig, *, dry_run: bool) -> None:
        _plan(config, ground)
        found.append(config)

    return _parsing(pretrain.COMMAND, action, found, text, what, folder)


def _plan(config: PretrainConfig, ground: Ground) -> None:
    """Does what `--dry_run` does, with small shards in place of the demo's, which take a minute."""
    if config.data.path == "demo":
        config = replace(config, data=replace(config.data, path=str(ground.npy)))
    plan_of(config)


def finetuning(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A configuration of finetuning with something wrong."""
    from seamo_fast.tasks.finetuning.config import FinetuneConfig

    text, what = _text(rng, dataclasses.asdict(FinetuneConfig(data="data")))
    found: list[Any] = []
    return _parsing(finetune.COMMAND, found.append, found, text, what, folder)


def _text(rng: np.random.Generator, tree: Any) -> tuple[bytes, str]:
    """Returns a damaged YAML file, and how."""
    way = rng.random()
    if way < 0.15:
        number = int(rng.integers(len(TEXTS)))
        return TEXTS[number].encode(), f"the text {TEXTS[number][:60]!r}"
    if way < 0.35:
        return trees.damage_text(rng, yaml.safe_dump(tree, sort_keys=False).encode())
    tree, how = trees.damage(rng, tree)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode(), how


def _parsing(
    what: Command[Any], action: Any, found: list[Any], text: bytes, how: str, folder: Path
) -> Attack:
    path = folder / "config.yaml"
    path.write_bytes(text)

    def door() -> Any:
        command(lambda given: what.run(action, given), "--config", path)
        return found[0]

    def check(config: Any) -> str:
        if (folder / "pwned").exists():
            return "code of the file was run"
        twice = repeated(yaml.compose(text, yaml.SafeLoader))
        if twice:
            return f"{twice} is there twice"
        plain = json.loads(json.dumps(dataclasses.asdict(config)))
        return as_said(plain, yaml.safe_load(text))

    return Attack(how, door, check)


def repeated(node: Any) -> str:
    """Returns a key that a mapping of a YAML file has twice, "" if there is none."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
    twice = [key for key in keys if keys.count(key) > 1]
    return twice[0] if twice else next(filter(None, (repeated(value) for _, value in pairs)), "")


def as_said(config: dict[str, Any], said: dict[str, Any], where: str = "") -> str:
    """Compares settings with what the file says."""
    for key, value in said.items():
        name, came = f"{where}{key}", config[key]
        if isinstance(value, dict) or (value is None and isinstance(came, dict)):
            wrong = as_said(came, value or {}, f"{name}.")
            if wrong:
                return wrong
        elif not agrees(came, value):
            return f"{name}: {value!r} became {came!r}"
        elif isinstance(came, float) and not abs(came) < float("inf"):
            return f"{name} is {came}"
    modalities = config.get("modalities")
    if isinstance(modalities, list) and len(set(modalities)) < len(modalities):
        return f"{where}modalities {modalities}"
    if not 0 <= config.get("seed", 0) < 2**64:
        return f"{where}seed {config['seed']}"
    return ""


def agrees(came: Any, said: Any) -> bool:
    """Whether a setting is what the file says: as a number or a text, but no truth for a number."""
    if isinstance(came, list) and isinstance(said, list):
        return len(came) == len(said) and all(map(agrees, came, said))
    if isinstance(came, dict) and isinstance(said, dict):
        return all(key in came and agrees(came[key], value) for key, value in said.items())
    if isinstance(came, bool) or isinstance(said, bool):
        return type(came) is type(said) and came == said
    if came == said or (type(came) is float and type(said) is int and came == float(said)):
        return True
    return type(said) is str and (came == yaml.safe_load(said) or str(came) == said)


def words(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A command line with an absurd value of one or two settings."""
    (folder / "run.yaml").write_text(yaml.safe_dump(ground.settings))
    tree = to_dict(PretrainConfig())
    keys = [".".join(path) for path in trees.places(tree) if len(path) == 2]
    given: list[str] = []
    for _ in range(int(rng.integers(1, 3))):
        value = trees.ABSURD[int(rng.integers(len(trees.ABSURD)))]
        text = value if isinstance(value, str) else json.dumps(value)
        given.append(f"--{rng.choice(keys)}={text}")
    found: list[PretrainConfig] = []

    def action(config: PretrainConfig, *, dry_run: bool) -> None:
        _plan(config, ground)
        found.append(config)

    def door() -> PretrainConfig:
        line = ("--config", folder / "run.yaml", *given)
        command(lambda these: pretrain.COMMAND.run(action, these), *line)
        return found[0]

    def check(config: PretrainConfig) -> str:
        wrong = ""
        for each in given:
            key, _, text = each[2:].partition("=")
            section, name = key.split(".")
            came = to_dict(config)[section][name]
            if text and not agrees(came, text) and not agrees(came, yaml.safe_load(text)):
                wrong = f"{key}: {text!r} became {came!r}"
        return wrong or as_said(to_dict(config), {})

    return Attack(" ".join(given)[:200], door, check)


def mapping(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A mapping with something wrong, of files that are right."""
    text, what = _text(rng, SERIES)
    path = folder / "mapping.yaml"
    path.write_bytes(text)

    def door() -> ShardSet:
        pack(open_source(ground.series, mapping=str(path)), folder / "out")
        return ShardSet(folder / "out")

    return Attack(what, door, lambda shards: as_mapped(shards, text, ground.series))


def as_mapped(shards: ShardSet, text: bytes, source: Path) -> str:
    """Compares packed bands with those of the files that the mapping names."""
    twice = repeated(yaml.compose(text, yaml.SafeLoader))
    if twice:
        return f"{twice} is there twice"
    said = yaml.safe_load(text)["modalities"]
    files = {path: tifffile.imread(path) for path in source.rglob("*.tif")}
    for number in range(len(shards)):
        read = shards.read(number)
        for m, modality in enumerate(shards.modalities):
            bands = said[modality.name]["bands"]
            [grid] = read.bands[modality.name]
            for t in np.flatnonzero(read.valid[:, m]):
                planes = {
                    band: {f[..., int(n) - 1].astype(grid.dtype).tobytes() for f in files.values()
                           if f.shape[-1] >= int(n)}
                    for band, n in bands.items()
                }  # fmt: skip
                for plane, band in zip(grid[t], bands, strict=True):
                    if plane.tobytes() not in planes[band]:
                        return f"band {band} of {modality.name} is not that of a file"
    return ""
