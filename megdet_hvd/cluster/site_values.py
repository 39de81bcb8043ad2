"""The values of a site file's entries: from text, checked. Pure."""

import difflib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megdet_hvd.cluster.srun_options import read_srun_options
from megdet_hvd.errors import UserError

LAUNCHERS = ("auto", "srun", "mpirun", "horovodrun")
"""What may start the ranks; ``auto``: what the site has."""
BINDINGS = ("cores", "none")
"""Whether a process is held to cores of its own."""
ARCHIVES = (".tar", ".tar.gz", ".tgz")
"""How the name of an archive ends."""


def value_readers() -> dict[str, Callable[[str, str], Any]]:
    """For each field of :class:`megdet_hvd.cluster.site.Site`, what makes its value of a text.

    A reader takes the entry's name, for messages, and its text; it raises UserError.
    """
    return {
        "partition": _word,
        "account": _word,
        "qos": _word,
        "sbatch_options": _words,
        "launcher": _one_of(LAUNCHERS),
        "srun_mpi": _word,
        "srun_options": lambda name, text: read_srun_options(name, _words(name, text)),
        "container": _words,
        "data_root": _path,
        "staging": _path,
        "environment": _archive,
        "requeue_on_failure": _count,
        "bind": _one_of(BINDINGS),
        "network_cards": _cards,
    }


def _word(name: str, text: str) -> str:
    if not re.fullmatch(r"[\w.,:@+/-]+", text) or text.startswith("-"):
        raise UserError(f"{name}={text}: must be one word, such as gpu")
    return text


def _words(name: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{name}={text}: the quotes in it don't match ({error})") from None


def _one_of(choices: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text in choices:
            return text
        near = difflib.get_close_matches(text.lower(), choices, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise UserError(f"{name}={text}: must be {' or '.join(choices)}{hint}")

    return read


def _path(name: str, text: str) -> Path:
    if text.startswith("~"):
        raise UserError(f"{name}={text}: in quotes ~ stays as it is; write $HOME instead")
    if not text.startswith("/"):
        raise UserError(f"{name}={text}: must be a whole path, from / on")
    return Path(text)


def _archive(name: str, text: str) -> Path:
    path = _path(name, text)
    if not text.endswith(ARCHIVES):
        raise UserError(
            f"{name}={text}: must be an archive made by `make pack`, so its name ends in "
            f"{' or '.join(ARCHIVES)}"
        )
    return path


def _cards(name: str, text: str) -> tuple[str, ...]:
    cards = tuple(text.split())
    for card in cards:
        if not re.fullmatch(r"[A-Za-z][\w.-]*(:\d+)?", card, re.ASCII):
            raise UserError(
                f"{name}: {card}: must be names of cards, one blank between two, such as "
                "mlx5_0 mlx5_1, or mlx5_0:1 with a port"
            )
    return cards


def _count(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text):
        raise UserError(f"{name}={text}: must be a whole number ≥ 0, such as 2")
    return int(text)
