"""Moved to `seamo_fast.checkpoint_files`; this name stays for those who call it."""

from __future__ import annotations

import warnings

from seamo_fast.checkpoint_files import newest_good, record_digest, sha256, step_folders, verify

__all__ = ["newest_good", "record_digest", "sha256", "step_folders", "verify"]

warnings.warn(
    "seamo_fast.checkpoints has moved to seamo_fast.checkpoint_files",
    DeprecationWarning,
    stacklevel=2,
)
