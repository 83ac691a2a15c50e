"""Errors that a command shows to its user as one line instead of a traceback."""

from __future__ import annotations


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


class CheckpointError(SeaMoError):
    """A checkpoint that is missing, damaged, or belongs to another configuration."""
