"""A short attack, and that the attack notices doors that do harm."""

from __future__ import annotations

import ctypes
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamo_fast.errors import DataError
from seamo_fast.files import parse_json
from tests.attack import campaign, kinds
from tests.attack.__main__ import main
from tests.attack.isolate import BAD, Attack, command, isolate, refusal
from tests.attack.kinds import KINDS, Kind

SEED = 14
EACH = 5  # inputs of a kind; of what is known one
ALLOWED = 200 * 2**20  # bytes, in place of `isolate.MEMORY`, to take less of this machine
ABOVE = 3 * ALLOWED // 2
SLOW = ("known: stopped_run", "commands")  # new interpreters


def numbers() -> list[int]:
    """The first inputs of each kind."""
    count: Counter[str] = Counter()
    chosen = []
    for number in range(1500):
        kind = campaign.kind_of(list(KINDS), number)
        if kind not in SLOW and count[kind] < EACH:
            count[kind] += 1
            chosen.append(number)
    assert set(count) == KINDS.keys() - set(SLOW)
    return chosen


@pytest.mark.timeout(900)
def test_no_input_does_harm(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    ground = campaign.prepare(tmp_path)
    results = campaign.attack(ground, tmp_path, list(KINDS), SEED, numbers(), 2, lambda _: None)
    bad = [each for each in results if each.verdict in BAD]
    assert not bad, "\n".join(f"--seed {SEED} --only {each.number}: {each}" for each in bad)
    # what was once wrong is right, not refused for another reason
    known = {each.kind: each.verdict for each in results if each.kind.startswith("known")}
    assert known == dict.fromkeys(known, "accepted") | {"known: local_file": "refused"}
    # and not because nothing is let in
    accepted = {each.kind for each in results if each.verdict == "accepted"}
    assert len(accepted) > len(KINDS) // 2


def raises_key_error() -> None:
    raise KeyError("files")


def takes_memory() -> int:
    return len(np.ones(ABOVE // 8))


def reserves_memory() -> int:
    return len(np.empty(ABOVE // 8))


def maps_files() -> int:
    import mmap

    with mmap.mmap(-1, ABOVE) as mapped:  # shared pages are no data of the process
        for place in range(0, len(mapped), 4096):
            mapped[place] = 1
        return len(mapped)


def hides_memory() -> None:
    try:
        takes_memory()
    except MemoryError as error:
        raise DataError("it cannot be read") from error


def segfaults() -> None:
    ctypes.string_at(0)


def says_much() -> None:
    raise DataError("one line\nand another")


def raises_in_a_library() -> None:
    np.zeros(2).reshape(3)


def shows_an_error_of_the_package() -> None:
    def main(_: object) -> int:
        return int(parse_json("{"))

    command(main)


def hangs() -> None:
    time.sleep(9)


def gives_a_wrong_answer() -> int:
    return 7


FAULTS: dict[Callable[[], Any], str] = {
    raises_key_error: "traceback",
    raises_in_a_library: "traceback",
    takes_memory: "memory",
    reserves_memory: "memory",
    maps_files: "memory",
    hides_memory: "memory",
    segfaults: "crash",
    says_much: "unclear",
    shows_an_error_of_the_package: "traceback",
    hangs: "time",
    gives_a_wrong_answer: "let in",
}


@pytest.mark.parametrize(
    ("door", "verdict"), FAULTS.items(), ids=[door.__name__ for door in FAULTS]
)
def test_a_door_that_does_harm_is_noticed(
    monkeypatch: pytest.MonkeyPatch, door: Callable[[], Any], verdict: str
) -> None:
    monkeypatch.setattr("tests.attack.isolate.MEMORY", ALLOWED)
    seconds = 1.0 if verdict == "time" else 60.0
    attack = Attack("planted", door, lambda found: f"{found} was accepted", seconds)
    what, outcome = isolate(lambda: attack)
    assert (what, outcome.verdict) == ("planted", verdict), outcome.text


def test_what_is_right_is_let_in_and_what_is_wrong_refused() -> None:
    def refuses() -> None:
        raise DataError("shards/manifest.json is damaged")

    right = isolate(lambda: Attack("right", lambda: 7, lambda found: "" if found == 7 else "no"))
    wrong = isolate(lambda: Attack("wrong", refuses, lambda _: "no"))
    assert (right[1].verdict, wrong[1].verdict) == ("accepted", "refused")


def test_an_input_that_cannot_be_made_is_no_good_one() -> None:
    assert isolate(raises_key_error)[1].verdict == "traceback"  # type: ignore[arg-type]
    what, outcome = isolate(segfaults)  # type: ignore[arg-type]
    assert (what, outcome.verdict) == ("it was not made", "crash")


def test_a_crash_after_a_slow_making_is_a_crash() -> None:
    def slowly() -> Attack:
        time.sleep(0.6)
        return Attack("slow", segfaults, str, 0.5)

    assert isolate(slowly)[1].verdict == "crash"


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("error: a\n", "a"),
        ("warning\nerror: a error: b\n", "a error: b"),
        ("error: a\nb\n", "a\nb"),
    ],
)
def test_the_line_of_a_command(stderr: str, line: str) -> None:
    assert refusal(stderr) == line


@pytest.mark.parametrize(
    "stderr", ["", "a\n", 'Traceback (most recent ...)\n  File "a"\nerror: a\n']
)
def test_a_command_that_ends_without_a_line(stderr: str) -> None:
    with pytest.raises(AssertionError):
        refusal(stderr)


def test_a_status_other_than_2_is_returned() -> None:
    assert command(lambda given: len(given), "a", 7, Path("b")) == 3


def planted(rng: np.random.Generator, ground: object, folder: Path) -> Attack:
    number = int(rng.integers(10**6))
    return Attack(f"planted {number}", lambda: number, lambda found: "odd" if found % 2 else "")


def test_the_command_counts_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.attack.__main__.KINDS", {"planted": Kind(planted, 1)})
    monkeypatch.setattr(kinds, "KINDS", {"planted": Kind(planted, 1)})
    monkeypatch.setattr(campaign, "KINDS", {"planted": Kind(planted, 1)})
    monkeypatch.setattr("tests.attack.ground.Ground.make", lambda _: None)
    where = ["--json", str(tmp_path / "a.json"), "--jobs", "2", "--seed", "3"]
    assert main([*where, "--cases", "12"]) == 1
    found = json.loads((tmp_path / "a.json").read_text())
    odd, even = found["counts"]["planted: let in"], found["counts"]["planted: accepted"]
    assert odd == len(found["bad"]) > 0
    assert even == 12 - odd > 0
    worst = found["bad"][0]
    again = capsys.readouterr().out
    assert f"{worst['number']:5d}  planted  let in" in again
    assert main([*where, "--only", str(worst["number"])]) == 1
    assert worst["what"] in capsys.readouterr().out
