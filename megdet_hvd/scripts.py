"""The console scripts, ``megdet-train`` and so on: each is its module's ``main``, nothing else.

setup.cfg names these functions, and :data:`megdet_hvd.command.SCRIPTS` the modules. What a module
imports is imported inside :func:`~megdet_hvd.command.leave`, so that Ctrl-C is no traceback then
either.
"""

from importlib import import_module
from typing import NoReturn

from megdet_hvd.command import SCRIPTS, leave


def _run(script: str) -> NoReturn:
    leave(lambda: int(import_module(SCRIPTS[script]).main()))


def train() -> NoReturn:
    """``megdet-train``."""
    _run("megdet-train")


def evaluate() -> NoReturn:
    """``megdet-evaluate``."""
    _run("megdet-evaluate")


def predict() -> NoReturn:
    """``megdet-predict``."""
    _run("megdet-predict")


def data() -> NoReturn:
    """``megdet-data``."""
    _run("megdet-data")


def pipeline() -> NoReturn:
    """``megdet-pipeline``."""
    _run("megdet-pipeline")


def submit() -> NoReturn:
    """``megdet-submit``."""
    _run("megdet-submit")


def doctor() -> NoReturn:
    """``megdet-doctor``."""
    _run("megdet-doctor")


def preflight() -> NoReturn:
    """``megdet-preflight``."""
    _run("megdet-preflight")


def placement() -> NoReturn:
    """``megdet-placement``."""
    _run("megdet-placement")


def bench() -> NoReturn:
    """``megdet-bench``."""
    _run("megdet-bench")


def plan() -> NoReturn:
    """``megdet-plan``."""
    _run("megdet-plan")


def init() -> NoReturn:
    """``megdet-init``."""
    _run("megdet-init")
