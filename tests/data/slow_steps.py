"""Steps that fail in the loader, each in its way; workers import them from here."""

import os
import signal
import time
from collections.abc import Callable

import torch

from megdet_hvd.errors import UserError

FAILS_AT = 3


def _spin() -> None:
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        pass


def _refuse() -> None:
    raise UserError("no such thing")


def _fail() -> None:
    raise KeyError("this one")


def _compute() -> None:
    """In torch's code nearly all of the time."""
    pixels = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        torch.nn.functional.interpolate(pixels, size=(300, 300), mode="bilinear", antialias=True)


WAYS: dict[str, Callable[[], object]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leaves": lambda: os._exit(7),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hangs": lambda: time.sleep(600),
    "busy": _spin,
    "computes": _compute,
    "refuses": _refuse,
    "fails": _fail,
    "well": lambda: None,
}


class Steps:
    """Step k is a tensor of k; at FAILS_AT it fails in the named way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def files(self, number: int) -> list[str]:
        return [f"pictures/{number}.jpg"]

    def __getitem__(self, number: int) -> torch.Tensor:
        if number == FAILS_AT:
            WAYS[self.way]()
        return torch.full((1000,), number)
