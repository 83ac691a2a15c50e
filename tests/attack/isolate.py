"""One input in a process of its own, with little memory and time, and what came of it."""

from __future__ import annotations

import faulthandler
import io
import json
import logging
import os
import re
import resource
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from seamo_fast.errors import SeaMoError

MEMORY: Final = 2 * 2**30  # bytes beyond what the process has at its start
SECONDS: Final = 10.0
_MAKING: Final = 60.0  # seconds
FILES: Final = 2**30  # bytes of the largest file that may be written
GOOD: Final = ("refused", "accepted")
BAD: Final = ("crash", "traceback", "memory", "time", "unclear", "let in")
_PACKAGE: Final = str(Path(__file__).resolve().parents[2])
_NO_MEMORY: Final = ("allocate memory", "unable to allocate", "bad_alloc", "bad allocation")


class Refused(Exception):  # noqa: N818 (no error: what should happen)
    """A command ended with status 2 and one line."""


class Attack(NamedTuple):
    """One input.

    Attributes:
        what: What is wrong with it, or that nothing is.
        door: Takes it in; returns what was read.
        check: Returns what an independent look finds wrong with what was read, "" for nothing.
        seconds: How long it may take.
    """

    what: str
    door: Callable[[], Any]
    check: Callable[[Any], str]
    seconds: float = SECONDS


class Outcome(NamedTuple):
    """What came of an input.

    Attributes:
        verdict: One of `GOOD` or `BAD`. `unclear` is an error of no or several lines, `let in` a
            wrong input that was accepted.
        text: The message, or what is wrong.
        seconds: How long it took.
        peak: Resident memory at most, beyond that of the start, in bytes.
    """

    verdict: str
    text: str
    seconds: float
    peak: int


def isolate(make: Callable[[], Attack]) -> tuple[str, Outcome]:
    """Makes an input and lets it in, in a forked process; returns what it was and came of it."""
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(make, writing)
    os.close(writing)
    what, found, verdict = "it was not made", None, ""
    try:
        what, limit = _receive(reading, _MAKING)
        found = _receive(reading, limit)
    except TimeoutError:
        verdict = "time"
    except EOFError:
        verdict = "crash"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(reading)
    took = time.monotonic() - began
    if found is not None:
        return what, Outcome(*found[:2], took, found[2])
    return what, Outcome(verdict, f"after {took:.1f} s, status {status}", took, 0)


def _receive(pipe: int, seconds: float) -> Any:
    """Returns the next line that was sent.

    Raises:
        TimeoutError: There is none in time.
        EOFError: There will be none.
    """
    if not select.select([pipe], [], [], seconds)[0]:
        raise TimeoutError
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(pipe, 1)
        if not more:
            raise EOFError
        line += more
    return json.loads(line)


def _child(make: Callable[[], Attack], pipe: int) -> None:
    announced = False
    try:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        faulthandler.disable()
        warnings.simplefilter("ignore")
        logging.disable()
        attack = make()
        os.write(pipe, json.dumps([attack.what, attack.seconds]).encode() + b"\n")
        announced = True
        _limit()
        before = _peak()
        verdict, text = judge(attack)
        grown = max(0, _peak() - before)
        if grown > MEMORY:
            verdict, text = "memory", f"{grown / 2**20:.0f} MiB; {verdict}: {text}"
        os.write(pipe, json.dumps([verdict, text[:800], grown]).encode() + b"\n")
    except BaseException:  # noqa: BLE001 (a forked process must not return)
        text = traceback.format_exc()
        if not announced:
            os.write(pipe, b'["it was not made", 1]\n')
        os.write(pipe, json.dumps(["traceback", text[-800:], 0]).encode() + b"\n")
    finally:
        os._exit(0)


def _limit() -> None:
    data = next(x for x in Path("/proc/self/status").read_text().split("\n") if "VmData" in x)
    allowed = int(data.split()[1]) * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().split("\n")
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def judge(attack: Attack) -> tuple[str, str]:
    """Lets an input in; returns the verdict and why."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            found = attack.door()
    except BaseException as error:  # noqa: BLE001 (whatever it is, it is counted)
        return _of_error(error)
    wrong = attack.check(found)
    return ("let in", wrong) if wrong else ("accepted", "")


def _of_error(error: BaseException) -> tuple[str, str]:
    text = f"{type(error).__name__}: {error}"
    if _lacked_memory(error):
        return "memory", text
    if not (isinstance(error, (SeaMoError, Refused)) or _ours(error)):
        return "traceback", text + _place(error)
    lines = str(error).strip().splitlines()
    return ("refused" if len(lines) == 1 else "unclear", text)


def _lacked_memory(error: BaseException | None) -> bool:
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(each in text for each in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _ours(error: BaseException) -> bool:
    """Whether it is what a Python call raises, on purpose: raised in the package itself."""
    if not isinstance(error, (ValueError, TypeError)):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = (last.line or "").startswith("raise ")
    inside = any(f"{_PACKAGE}/{each}/" in last.filename for each in ("seamo_fast", "kernels"))
    return raised and inside


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    shown = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[-3:]]
    return f" at {', '.join(shown)}"


def command(main: Callable[[Sequence[str]], int], *arguments: object) -> int:
    """Runs a command in this process; returns its status if it is not 2.

    Raises:
        Refused: It ended with status 2, having said why in one line.
        AssertionError: It said so otherwise, or let an error out, which shows a traceback.
    """
    errors = io.StringIO()
    with redirect_stderr(errors):
        try:
            status = main([str(each) for each in arguments])
        except Exception as error:
            text = f"{type(error).__name__}: {error}{_place(error)}"
            raise AssertionError(f"a command let out {text}") from error
    if status == 2:
        raise Refused(refusal(errors.getvalue()))
    return status


def refusal(stderr: str) -> str:
    """Returns the one line after `error: ` that a command's stderr ends with."""
    assert "Traceback" not in stderr, stderr[-800:]
    found = re.search(r"^error: (.*)\Z", stderr.rstrip("\n"), re.MULTILINE | re.DOTALL)
    assert found, f"no line begins with error: {stderr[-300:]!r}"
    return found[1]
