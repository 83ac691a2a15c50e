"""Declares the packages and the native kernels; everything else is in pyproject.toml.

The folders ``kernels`` and ``csrc`` are installed inside ``seamo_fast``: at top level ``kernels``
would shadow a package of that name on PyPI, and the sources let ``python -m seamo_fast.build``
compile after the installation. See kernels/_native.py for what is compiled when.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from setuptools import find_packages, setup

# the modules of kernels/ that compile, without its __init__.py, which needs torch
compiling = sys.modules["compiling"] = ModuleType("compiling")
compiling.__path__ = ["kernels"]
native = importlib.import_module("compiling._native")

setup(
    packages=[
        *find_packages(include=["seamo_fast", "seamo_fast.*"]),
        "seamo_fast.kernels",
        *(f"seamo_fast.kernels.{name}" for name in find_packages("kernels")),
        "seamo_fast.csrc",
    ],
    package_dir={"seamo_fast.kernels": "kernels", "seamo_fast.csrc": "csrc"},
    **native.setup_arguments(),
)
