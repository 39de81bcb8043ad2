"""One rank of a pool (``tests/pool.py``): it waits for checks, and does them one after another.

Argument: the socket of the pool. Each line that comes is a check, each line that goes back is what
became of it. What a check writes to standard output and error goes to a file of its own.
"""

import importlib
import json
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.left_behind import LISTENS, Before, start_afresh

PRELOADED = ("horovod.torch", "torchvision.ops", "megdet_hvd.engine.run", "tests.engine.small")
"""Imported before the first check, and with it its time, begins."""


@contextmanager
def output_to(file: Path) -> Iterator[None]:
    """Standard output and error, those of C libraries and child processes too, go to ``file``."""
    saved = os.dup(1), os.dup(2)
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, stream in zip(saved, (1, 2), strict=True):
            os.dup2(number, stream)
            os.close(number)
        os.close(target)


def do(asked: dict[str, Any]) -> dict[str, Any]:
    """The check's value, or why it has none, and what it has left behind."""
    answer: dict[str, Any] = {"value": None, "error": None, "left": []}
    module, _, function = asked["check"].partition(":")
    with output_to(Path(asked["output"])):
        try:
            check = getattr(importlib.import_module(module), function)
            before = Before.now()  # what the import has brought, it has brought for all
            try:
                start_afresh()
                os.chdir(asked["cwd"])
                os.environ.update(asked["env"])
                answer["value"] = check(*asked["arguments"])
                json.dumps(answer["value"])
            finally:
                answer["left"] = before.put_back()
        except BaseException:
            answer |= {"value": None, "error": traceback.format_exc()}
            print(answer["error"], file=sys.stderr, flush=True)
    return answer


class Link:
    """To the pool. One that is gone while a check goes on, with the tests, ends this process."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._busy = False
        threading.Thread(target=self._listen, name=LISTENS, daemon=True).start()

    def _listen(self) -> None:
        with suppress(ConnectionError):
            for line in self._socket.makefile("r", encoding="utf-8"):
                self._busy = True
                self._lines.put(line)
        if self._busy:
            os._exit(1)
        self._lines.put(None)

    def checks(self) -> Iterator[dict[str, Any]]:
        """What is asked, until the pool is closed."""
        while (line := self._lines.get()) is not None:
            yield json.loads(line)

    def say(self, what: dict[str, Any]) -> None:
        self._busy = False
        self._socket.sendall(f"{json.dumps(what)}\n".encode())


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    link = Link(sys.argv[1])
    link.say({"pid": os.getpid(), "rank": rank_here()})
    for asked in link.checks():
        link.say(do(asked))


def rank_here() -> int:
    """As the launcher numbers the processes."""
    from megdet_hvd.cluster.launch import read_launch

    return read_launch(os.environ).rank or 0


if __name__ == "__main__":
    main()
