"""Which folder a finetuning writes to: a new one, or that of the same command, to resume it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from seamo_fast.checkpoint_files import wrong_entry
from seamo_fast.errors import ConfigError, SeaMoError
from seamo_fast.files import locked, read_json, write_json
from seamo_fast.modalities.band import is_number
from seamo_fast.training.recovery.run_folder import check_same

RESULTS: Final = "results.json"  # written last: a folder without it is not finished
RUN: Final = "run.json"  # written first: what a command must have in common with it to resume
BEST: Final = "best.safetensors"
SURVEY: Final = "survey.json"
_ENTRIES: Final = {"dataset": str, "task": str, "test": dict, "versions": dict}
OTHER: Final = "or choose another --output"


@contextmanager
def open_folder(
    named: str | None, default: Path, identity: Mapping[str, Any]
) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Gives a run its folder, which no other process may use meanwhile.

    Args:
        named: What the user asks for; None for `default`, or with -2, -3 ... at its end: the first
            that is new, or that an unfinished run of the same identity left.
        default: See above.
        identity: What the run must have in common with one that it resumes, JSON-able.

    Yields:
        The folder, and the results of the run if it is finished already.

    Raises:
        ConfigError: The folder that the user named is in use, or holds another run, or damaged
            results.
    """
    with ExitStack() as stack:
        if named is None:
            folder = _first(default, identity, stack)
        else:
            folder = Path(named)
            stack.enter_context(locked(folder, "output", "--output"))
            _check_same(folder, identity)
        if (folder / RESULTS).exists():
            yield folder, _read_results(folder)
            return
        if not (folder / RUN).exists():
            write_json(folder / RUN, identity)
        try:
            yield folder, None
        except SeaMoError:
            _remove_if_nothing_began(folder)
            raise


def _remove_if_nothing_began(folder: Path) -> None:
    """Lets other settings have a folder in which nothing but the survey was done."""
    if all(path.name in (RUN, SURVEY) or path.name.startswith(".") for path in folder.iterdir()):
        for name in (SURVEY, RUN):
            (folder / name).unlink(missing_ok=True)


def _first(default: Path, identity: Mapping[str, Any], stack: ExitStack) -> Path:
    """Returns the first folder that the run may have, locked."""
    for number in count(1):
        folder = default if number == 1 else default.with_name(f"{default.name}-{number}")
        if not _is_free(folder, identity):
            continue
        try:
            with ExitStack() as trial:
                trial.enter_context(locked(folder, "output", "--output"))
                if _is_free(folder, identity):  # still, now that nobody else has it
                    stack.enter_context(trial.pop_all())
                    return folder
        except ConfigError:
            if not folder.is_dir():  # it cannot be made, nor can the next
                raise
    raise AssertionError


def _is_free(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Returns whether a folder is new, or holds an unfinished run of this identity."""
    if (folder / RUN).exists():
        with suppress(ConfigError):  # a damaged one is another's
            return not (folder / RESULTS).exists() and _read(folder) == identity
        return False
    return not folder.exists() or not any(
        path for path in folder.iterdir() if not path.name.startswith(".")
    )


def _check_same(folder: Path, identity: Mapping[str, Any]) -> None:
    if (folder / RUN).exists():
        check_same(folder, _read(folder), identity, OTHER)
    elif (folder / RESULTS).exists():
        raise ConfigError(f"output {folder} has {RESULTS} of something else; give another folder")


def _read(folder: Path) -> dict[str, Any]:
    found = _read_object(folder / RUN)
    if found is None:
        raise ConfigError(f"{folder / RUN} is damaged; choose another --output")
    return found


def _read_results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    found = _read_object(path)
    if found is None or wrong_entry(found, _ENTRIES) or not _are_figures(found["test"]):
        raise ConfigError(f"{path} is damaged; remove it to train again, {OTHER}")
    return found


def _read_object(path: Path) -> dict[str, Any] | None:
    """Returns what a JSON file holds, None if it is damaged."""
    try:
        found = read_json(path)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _are_figures(found: dict[str, Any]) -> bool:
    """Returns whether results have figures of the test part, of which seeds make means."""
    return all(
        isinstance(each, dict)
        and "value" in each
        and (each["value"] is None or is_number(each["value"]))
        for each in found.values()
    )
