"""Errors that a command shows to its user as one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class SeaMoError(Exception):
    """Base of every failure whose message says how the user can fix it."""


class DataError(SeaMoError):
    """Tiles, shards or datasets that cannot be used as they are.

    Args:
        message: What is wrong and how to fix it.
        kind: Its code in reports, one of `seamo_fast.data.shards.KINDS`.
    """

    def __init__(self, message: str = "", kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


class UnitError(DataError, ValueError):
    """Values that cannot have the unit of their modality, where `strict` asks for an error."""

    def __init__(self, message: str = "", kind: str = "unit") -> None:
        super().__init__(message, kind)


class UnitWarning(UserWarning):
    """Values that look like another unit than that of their modality."""


class ConfigError(SeaMoError):
    """Settings that are unknown, impossible or contradict one another."""


def expect(holds: bool, key: str, expected: str, came: object) -> None:
    """Raises ConfigError unless a setting holds what is expected of it."""
    if not holds:
        raise ConfigError(f"{key} must be {expected}, but got {came!r}")


def expect_seed(key: str, seed: int) -> None:
    """Raises ConfigError unless a seed is one of 2^64, which all give other random numbers."""
    expect(0 <= seed < 2**64, key, "at least 0 and below 2^64", seed)


def expect_once(key: str, names: Sequence[str] | None) -> None:
    """Raises ConfigError unless names are some, each once; None is for all."""
    good = names is None or 0 < len(names) == len(set(names))
    expect(good, key, "some names, each once, or null for all", names and list(names))


class CheckpointError(SeaMoError):
    """A checkpoint that is missing, damaged, or belongs to another configuration."""
