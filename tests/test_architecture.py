"""Imports point one way, from commands down to words, and no folder is too full to read."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MOST = 12  # modules in a folder, besides its subfolders

# a part imports from itself and from rows above its own
ROWS = [
    {"_version", "errors", "huggingface"},
    {"files"},
    {"modalities", "randomness"},
    {"checkpoint_files", "cli"},
    {"tiles", "views", "pictures", "units"},
    {"kernels", "data"},
    {"model"},
    {"reference", "training"},
    {"tasks"},
    {
        "profile",
        "pack",
        "stats",
        "view",
        "pretrain",
        "evaluate",
        "finetune",
        "info",
        "build",
        "__main__",
    },
]
DATA_ROWS = [{"shards"}, {"packing", "loading", "demo"}, {"checks"}]
STRANGE_TO_DATA = {"views", "checkpoint_files", "cli"}  # of the rows above it
MOVED = {  # names that modules had before: nothing but a warning and what has moved
    "checkpoints": "checkpoint_files",
    "data.loader": "data.loading.loader",
    "data.pack": "pack",
    "data.stats": "stats",
    "data.view": "view",
}
GIVEN_OUT = {"_version", "errors", "modalities", "tiles", "views", "model"}  # by the package itself

Name = tuple[str, ...]  # of a module below the package: ("data", "shards", "tiff")


def modules() -> dict[Name, Path]:
    found = {}
    for folder, prefix in (("seamo_fast", ()), ("kernels", ("kernels",))):
        for path in (REPOSITORY / folder).rglob("*.py"):
            parts = (*prefix, *path.relative_to(REPOSITORY / folder).with_suffix("").parts)
            if ".".join(parts) in MOVED:
                continue
            found[parts[:-1] if parts[-1] == "__init__" else parts] = path
    return found


MODULES = modules()


def imported(name: Name) -> Iterator[Name]:
    """What a module imports of the package, in functions and for type checkers too."""
    package = name if MODULES[name].name == "__init__.py" else name[:-1]
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found = [tuple(each.name.split(".")) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                module = ("seamo_fast", *package[: len(package) + 1 - node.level], *module)
            found = [(*module, each.name) for each in node.names]
        else:
            continue
        for each in found:
            if each[0] == "seamo_fast":
                yield each[1:] if each[1:] in MODULES else each[1:-1]


ARROWS = sorted({(name, found) for name in MODULES for found in imported(name)} - {((), ())})


def check(wrong: Callable[[Name, Name], bool]) -> None:
    """Fails naming all imports for which `wrong` holds."""
    found = [f"{'.'.join(a)} imports {'.'.join(b)}" for a, b in ARROWS if a and b and wrong(a, b)]
    assert not found, "\n".join(found)


def rank(rows: list[set[str]], part: str) -> int:
    return next(number for number, row in enumerate(rows) if part in row)


def test_every_part_has_a_row() -> None:
    assert {name[0] for name in MODULES if name} == set().union(*ROWS)
    folders = {name[1] for name, path in MODULES.items() if name[:1] == ("data",) and name[1:]}
    assert folders == set().union(*DATA_ROWS)


def test_no_arrow_points_upwards() -> None:
    check(lambda a, b: a[0] != b[0] and rank(ROWS, a[0]) <= rank(ROWS, b[0]))
    assert {b[0] for a, b in ARROWS if not a} <= GIVEN_OUT


def test_data_knows_words_and_files_alone() -> None:
    check(lambda a, b: a[0] == "data" and b[0] in STRANGE_TO_DATA)


def test_folders_of_data_know_the_shards_and_not_one_another() -> None:
    def upwards(a: Name, b: Name) -> bool:
        inside = a[0] == b[0] == "data" and len(a) > 1 and len(b) > 1 and a[1] != b[1]
        return inside and rank(DATA_ROWS, a[1]) <= rank(DATA_ROWS, b[1])

    check(upwards)


def test_nothing_imports_integrations() -> None:
    check(lambda a, b: "integrations" in b and "integrations" not in a)


def test_no_module_imports_one_that_imports_it() -> None:
    """Nor over others; a folder's own __init__ may give out what is in it."""
    graph: dict[Name, set[Name]] = {}
    for a, b in ARROWS:
        if a != b and a != b[: len(a)]:
            graph.setdefault(a, set()).add(b)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_folders_beside_one_another_make_no_cycle() -> None:
    graph: dict[Name, set[Name]] = {}
    for a, b in ARROWS:
        depth = next((n for n, (x, y) in enumerate(zip(a, b, strict=False), 1) if x != y), 0)
        if len(a) > depth and len(b) > depth > 0:
            graph.setdefault(a[:depth], set()).add(b[:depth])
    TopologicalSorter(graph).prepare()


FOLDERS = sorted({str(each.parent.relative_to(REPOSITORY)) for each in MODULES.values()})


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_is_too_full(folder: str) -> None:
    """Commands at the top of the package are doors, and dunder files rooms that need no name."""
    doors = {path for name, path in MODULES.items() if name and name[0] in ROWS[-1]}
    kept = [
        path.name
        for path in (REPOSITORY / folder).glob("*.py")
        if not path.name.startswith("__")
        and path in MODULES.values()
        and not (folder == "seamo_fast" and path in doors)
    ]
    assert len(kept) <= MOST, ", ".join(sorted(kept))


@pytest.mark.parametrize("old", MOVED)
def test_names_that_modules_had_give_what_has_moved_and_warn(old: str) -> None:
    new = importlib.import_module(f"seamo_fast.{MOVED[old]}")
    sys.modules.pop(f"seamo_fast.{old}", None)
    message = rf"^seamo_fast\.{old} has moved to {new.__name__}$"
    with pytest.warns(DeprecationWarning, match=message):
        module = importlib.import_module(f"seamo_fast.{old}")
    assert module.__all__
    assert all(getattr(module, name) is getattr(new, name) for name in module.__all__)


@pytest.mark.parametrize("old", ["data.pack", "data.stats", "data.view"])
def test_commands_that_have_moved_run_and_say_so(old: str) -> None:
    command = [sys.executable, "-m", f"seamo_fast.{old}", "--nosuch"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"DeprecationWarning: seamo_fast.{old} has moved to seamo_fast.{MOVED[old]}\n" in (
        ended.stderr
    )
    assert ended.stderr.splitlines()[-1].startswith("error: unknown setting 'nosuch'")
