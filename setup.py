"""Declares the packages; everything else is in pyproject.toml.

The folder ``kernels`` is installed as ``seamo_fast.kernels``: at top level it would shadow a
package of that name on PyPI.
"""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["seamo_fast", "seamo_fast.*"]),
        "seamo_fast.kernels",
        *(f"seamo_fast.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"seamo_fast.kernels": "kernels"},
)
