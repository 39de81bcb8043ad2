"""What a check may not leave behind in a process that is handed another one.

The process's own state is put back. What can't be, a Horovod that still runs or a function that is
still replaced, is told: its check fails, and the process is not used again.
"""

import faulthandler
import itertools
import logging
import multiprocessing.forkserver
import os
import random
import resource
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch

GONE_WITHIN_S = 3.0
"""Threads and child processes that end take a moment."""

LISTENS = "link to the pool"
"""The one thread that stays."""

_SIGNALS = tuple(
    signal.Signals[f"SIG{name}"]
    for name in ("TERM", "USR1", "USR2", "INT", "HUP", "ALRM", "CHLD", "PIPE", "XFSZ")
)
_LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_NPROC)
_WATCHED = ("megdet_hvd", "horovod.torch")
"""Packages whose functions, classes and methods are looked at."""


@dataclass(frozen=True)
class _Logger:
    """One logger's own state."""

    name: str | None
    handlers: tuple[logging.Handler, ...]
    level: int
    propagate: bool

    @classmethod
    def now(cls, name: str | None) -> "_Logger":
        logger = logging.getLogger(name)
        return cls(name, tuple(logger.handlers), logger.level, logger.propagate)

    def put_back(self) -> None:
        logger = logging.getLogger(self.name)
        logger.handlers[:] = self.handlers
        logger.setLevel(self.level)
        logger.propagate = self.propagate


@dataclass(frozen=True)
class Before:
    """A process as it was."""

    cwd: str
    environ: dict[str, str]
    argv: list[str]
    path: list[str]
    hooks: tuple[Any, Any, Any]
    handlers: dict[int, Any]
    cores: set[int]
    umask: int
    limits: dict[int, tuple[int, int]]
    loggers: tuple[_Logger, ...]
    warnings: list[Any]
    threads: int
    deterministic: tuple[bool, bool]
    functions: dict[str, int]

    @classmethod
    def now(cls) -> "Before":
        umask = os.umask(0o022)
        os.umask(umask)
        return cls(
            cwd=os.getcwd(),
            environ=dict(os.environ),
            argv=[*sys.argv],
            path=[*sys.path],
            hooks=(sys.excepthook, sys.unraisablehook, threading.excepthook),
            handlers={number: signal.getsignal(number) for number in _SIGNALS},
            cores=os.sched_getaffinity(0),
            umask=umask,
            limits={limit: resource.getrlimit(limit) for limit in _LIMITS},
            loggers=tuple(_Logger.now(name) for name in (None, "megdet_hvd")),
            warnings=[*warnings.filters],
            threads=torch.get_num_threads(),
            deterministic=(
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            functions=_functions(),
        )

    def put_back(self) -> list[str]:
        """Make it so again; what can't be put back, in words."""
        left = [*_left_running(), *self._replaced()]
        os.chdir(self.cwd)
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
        sys.argv[:], sys.path[:] = self.argv, self.path
        sys.excepthook, sys.unraisablehook, threading.excepthook = self.hooks
        for number, handler in self.handlers.items():
            if signal.getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.sched_setaffinity(0, self.cores)
        os.umask(self.umask)
        for limit, values in self.limits.items():
            resource.setrlimit(limit, values)
        for logger in self.loggers:
            logger.put_back()
        warnings.filters = [*self.warnings]
        if faulthandler.is_enabled():
            faulthandler.cancel_dump_traceback_later()
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])
        return left

    def _replaced(self) -> list[str]:
        """Functions that are others now, by a patch that nobody has taken away."""
        now = _functions()
        return [
            f"{name} is replaced" for name, was in self.functions.items() if now.get(name) != was
        ]


def start_afresh() -> None:
    """Every check begins with the same random state, and counts its nameless layers from zero.

    Ranks that have made unequal numbers of them would wait for sums of different names.
    """
    from megdet_hvd.bn import layer

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    layer._unnamed = itertools.count()


def _left_running() -> list[str]:
    """Sessions, threads and child processes; those of multiprocessing's server are ended first."""
    from megdet_hvd.comm import groups

    left = []
    horovod = sys.modules.get("horovod.torch")
    if horovod is not None and horovod.is_initialized():
        left.append("Horovod runs")
    if groups.bn_group_of_session() is not None:
        left.append("a group of Horovod's session is remembered")
    _end_server()
    until = time.monotonic() + GONE_WITHIN_S
    while (found := [*_threads(), *_children()]) and time.monotonic() < until:
        time.sleep(0.02)
    return left + found


def _end_server() -> None:
    """The server that loader processes come from keeps the environment of its first user."""
    server: Any = multiprocessing.forkserver._forkserver
    server._stop()


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        stays = thread is threading.main_thread() or thread.name == LISTENS
        if not stays and not isinstance(thread, threading._DummyThread):
            yield f"thread {thread.name} runs"


def _children() -> Iterator[str]:
    for child in psutil.Process().children(recursive=True):
        try:
            words = " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in words:
                yield f"process {child.pid} runs: {words[:100]}"
        except psutil.NoSuchProcess:
            continue


def _functions() -> dict[str, int]:
    """Each function and class of the watched packages, and each of the classes' own members."""
    found = {}
    for module_name, module in [*sys.modules.items()]:
        if not isinstance(module, types.ModuleType) or not _is_watched(module_name):
            continue
        for name, value in [*vars(module).items()]:
            if isinstance(value, types.FunctionType | type):
                found[f"{module_name}.{name}"] = id(value)
            if isinstance(value, type) and value.__module__ == module_name:
                for member, own in vars(value).items():
                    if isinstance(own, types.FunctionType | staticmethod | classmethod | property):
                        found[f"{module_name}.{name}.{member}"] = id(own)
    return found


def _is_watched(name: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in _WATCHED)
