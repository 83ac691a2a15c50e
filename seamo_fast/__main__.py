"""`seamo NAME ...`: every command of this package; `seamo NAME` is `python -m seamo_fast.NAME`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from seamo_fast.cli import run_one_of

COMMANDS: Final = {
    "pack": "pack.py",
    "stats": "stats.py",
    "view": "view.py",
    "pretrain": "pretrain.py",
    "evaluate": "evaluate.py",
    "finetune": "finetune.py",
    "profile": "profile/__main__.py",
    "info": "info.py",
    "build": "build.py",
}


def _summary(file: str) -> str:
    """Returns the first line of a command's docstring, without importing what it imports."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def _start(name: str, arguments: Sequence[str]) -> int:
    module = COMMANDS[name].removesuffix(".py").replace("/", ".")
    status: int = import_module(f"seamo_fast.{module}").main(arguments)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    summaries = {name: _summary(file) for name, file in COMMANDS.items()}
    return run_one_of("seamo", summaries, _start, arguments)


if __name__ == "__main__":
    sys.exit(main())
