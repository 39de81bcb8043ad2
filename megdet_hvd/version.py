"""``--version`` of every command: one line, without importing torch or Horovod."""

import argparse
import platform
from collections.abc import Sequence
from typing import Any

import megdet_hvd

BESIDE = ("horovod", "torch")
"""Packages whose versions stand beside ours: what a report of a fault has to say first."""


def version_line() -> str:
    """``megdet_hvd 0.1.0 (horovod 0.28.1, torch 2.14.1, Python 3.11.9)``."""
    from importlib import metadata  # takes as long as all else here, and is seldom needed

    def of(name: str) -> str:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            return f"no {name}"

    beside = [*map(of, BESIDE), f"Python {platform.python_version()}"]
    return f"megdet_hvd {megdet_hvd.__version__} ({', '.join(beside)})"


class _Print(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        print(version_line())
        parser.exit()


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """``--version``; it counts before anything that is missing from the command line."""
    parser.add_argument(
        "--version", action=_Print, nargs=0, help="show the versions that are installed, and exit"
    )
