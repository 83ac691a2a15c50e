"""The campaign's own parts: which faults are found, which tests are chosen, what is imported."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mutants.__main__ import equivalents, table
from tests.mutants.campaign import Campaign, Copy, Verdict, sample
from tests.mutants.faults import Mutant, find, parses
from tests.mutants.reach import Baseline, Imports, chosen

SOURCE = '''\
@decorated(3)
def clip(x: int | None, low: float = 0.5) -> float:
    """Says 1 + 1."""
    if x is None:
        raise ValueError(f"{1 + 1}")
    assert x != 4
    log.info(x < 1)
    note(x, low, strict=True)
    return max(x, low) if not low > 2 else (
        x * 3)
'''


def test_each_kind_of_fault_is_found_and_messages_are_left_alone() -> None:
    mutants = find("a.py", SOURCE.encode())
    assert {(mutant.function, mutant.first) for mutant in mutants} == {("clip", 1)}
    assert [mutant.what for mutant in mutants] == [
        "constant: 0.5 -> 1.5",
        "constant: 0.5 -> 0.5 - 1",
        "branch: never if x is None",
        "comparison: x is None -> x is not None",
        "statement: drop note(x, low, strict=True)",
        "argument: note(x, low, strict=True) -> note(low, x, strict=True)",
        "branch: max(x, low) if not low > 2 else x * 3 -> max(x, low)",
        "branch: max(x, low) if not low > 2 else x * 3 -> x * 3",
        "logic: not low > 2 -> low > 2",
        "comparison: low > 2 -> low >= 2",
        "constant: 2 -> 3",
        "constant: 2 -> 2 - 1",
        "clamp: max(x, low) -> x",
        "clamp: max(x, low) -> low",
        "arithmetic: x * 3 -> x / 3",
        "constant: 3 -> 4",
        "constant: 3 -> 3 - 1",
    ]
    assert len({mutant.key for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        changed = mutant.apply(SOURCE.encode())
        assert parses(changed)
        assert changed != SOURCE.encode()


FILES = {
    "seamo_fast/__init__.py": "",
    "seamo_fast/part/__init__.py": "",
    "seamo_fast/part/sums.py": """\
def add(a, b):
    return a + b


def scale(a):
    return a * 2
""",
    "seamo_fast/part/uses.py": "from seamo_fast.part.sums import add\n",
    "kernels/__init__.py": "",
    "kernels/_registry.py": "ON = 1\n",
    "csrc/common.h": "",
    "tests/__init__.py": "",
    "tests/part/test_sums.py": """\
from seamo_fast.part.sums import add, scale


def test_add():
    assert add(2, 3) == 5


def test_scale():
    assert scale(0) == 0
""",
    "tests/part/test_uses.py": "import seamo_fast.part.uses\n\n\ndef test_it():\n    pass\n",
    "tests/kernels/test_registry.py": """\
from seamo_fast.kernels import _registry


def test_on():
    assert _registry.ON
""",
    "pyproject.toml": """\
[tool.pytest.ini_options]
addopts = ["--import-mode=importlib"]
pythonpath = ["."]
""",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose tests notice faults in `add`, but not those in `scale`."""
    for name, text in FILES.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path / "root")], check=True)
    return tmp_path / "root"


def test_tests_are_ordered_by_name_and_imports(root: Path) -> None:
    imports = Imports(root)
    sums, uses = "tests/part/test_sums.py", "tests/part/test_uses.py"
    assert imports.tests_of("seamo_fast/part/sums.py") == [sums, uses]
    assert imports.tests_of("seamo_fast/part/uses.py") == [uses]
    assert imports.tests_of("kernels/_registry.py") == ["tests/kernels/test_registry.py"]


def test_those_that_call_the_function_are_chosen_quick_ones_first() -> None:
    tests = Baseline(
        seconds={"slow": 3.0, "quick": 1.0, "other": 0.1, "fixture": 0.5},
        calls={"slow": ["a.py:7"], "quick": ["a.py:7"], "other": ["a.py:9"], "fixture": []},
        shared=[],
    )
    assert chosen("a.py:7", "a.py", [tests], 60) == (["quick", "slow"], 4.0)
    assert chosen("a.py:7", "a.py", [tests], 2) == (["quick"], 1.0)
    assert chosen("a.py:0", "a.py", [tests], 60)[0] == ["other", "quick", "slow"]
    shared = tests._replace(shared=["a.py:5"])
    assert chosen("a.py:5", "a.py", [shared], 60)[0] == ["other", "fixture", "quick", "slow"]


def test_a_fault_in_the_copy_is_what_tests_import(root: Path, tmp_path: Path) -> None:
    campaign = Campaign(Copy(root, tmp_path / "copy"), tmp_path / "store", files=3, limit=60)
    paths = ["seamo_fast/part/sums.py", "kernels/_registry.py"]
    campaign.check(paths)
    found = {
        mutant.what: campaign.judge(mutant)
        for path in paths
        for mutant in find(path, (root / path).read_bytes())
    }
    assert {what: verdict.status for what, verdict in found.items()} == {
        "arithmetic: a + b -> a - b": "killed",
        "arithmetic: a * 2 -> a / 2": "survived",
        "constant: 2 -> 3": "survived",
        "constant: 2 -> 2 - 1": "survived",
        "constant: 1 -> 2": "survived",
        "constant: 1 -> 1 - 1": "killed",
    }
    assert found["arithmetic: a + b -> a - b"].by == "tests/part/test_sums.py::test_add"
    assert found["arithmetic: a + b -> a - b"].tests == 1
    for folder in (root, tmp_path / "copy"):
        assert {name: (folder / name).read_text() for name in FILES} == FILES


def test_a_sample_follows_from_the_seed_and_takes_turns(root: Path) -> None:
    paths = ["seamo_fast/part/sums.py", "kernels/_registry.py"]
    drawn = sample(root, paths, 4, seed=1)
    assert drawn == sample(root, paths, 4, seed=1)
    assert sorted(mutant.path for mutant in drawn[:2]) == sorted(paths)
    assert len(sample(root, paths, 99, seed=1)) == 6


def test_each_equivalent_has_a_reason_and_the_table_names_what_went_unnoticed() -> None:
    for key, reason in equivalents().items():
        assert key.count(" | ") >= 3, key
        assert reason
    kept, lost = (Mutant("a/b.py", "f", 1, "x", f"logic: {n}", 0, 0, 0, "") for n in "12")
    judged = [(kept, Verdict("killed", "", 1, 1, "")), (lost, Verdict("survived", "", 1, 1, ""))]
    text = table(judged)
    assert text.splitlines()[-1] == lost.key
    assert kept.key not in text


@pytest.mark.parametrize("text", ["x = (1", "return 3"])
def test_what_is_no_python_is_not_tried(text: str) -> None:
    assert not parses(text.encode())
