"""Command lines of the entry points: parsed, and ``--help`` answered, before torch is imported.

An entry point builds a parser with :func:`make_parser`, adds its own options, and calls
:func:`parse`. Settings are plain words, ``key.sub=value``, and may stand anywhere among the
options.
"""

import argparse
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from megdet_hvd.command import name_of
from megdet_hvd.config.embedded import embedded_value
from megdet_hvd.config.keys import Key, as_typed, groups, nearest_keys, prose
from megdet_hvd.job import outcome_notes
from megdet_hvd.version import add_version_option

_WIDEST = 96
"""Columns of a line of the help at most; a narrower terminal has its own."""


class _Parser(argparse.ArgumentParser):
    """Appends the list of settings to the help, made only when it is asked for."""

    settings_in_help = False

    def error(self, message: str) -> NoReturn:
        message += self._as_settings(message)
        outcome_notes.tell(2, message)  # the code that argparse leaves with
        super().error(message)

    def _as_settings(self, message: str) -> str:
        """For options as other trainers have them, ``--epochs 3``: the settings nearest to them."""
        unknown = re.findall(r" --([\w.-]+)", message.partition("unrecognized arguments:")[2])
        if not self.settings_in_help or not unknown:
            return ""
        near = ", ".join(nearest_keys(unknown[0].replace("-", "_")))
        return f"; a setting has no dashes, key.sub=value; nearest: {near}"

    def format_help(self) -> str:
        text = super().format_help()
        return f"{text}\n{settings_help()}" if self.settings_in_help else text


def make_parser(module: str, summary: str, *, settings: bool = True) -> argparse.ArgumentParser:
    """A parser for ``python -m MODULE``, or the console script of that name.

    Args:
        module: the module's dotted name; behind a blank, a word that always follows.
        summary: one or two sentences on what the command does.
        settings: take ``key.sub=value`` words (``overrides`` in the result) and list all
            settings in the help.
    """
    module, _, word = module.partition(" ")
    prog = f"{name_of(module)} {word}".rstrip()
    parser = _Parser(prog=prog, description=summary, allow_abbrev=False)
    add_version_option(parser)
    parser.settings_in_help = settings
    if settings:
        parser.add_argument(
            "overrides",
            nargs="*",
            metavar="key.sub=value",
            help="change a setting; all of them are listed below",
        )
    return parser


def add_config_option(
    parser: argparse.ArgumentParser, without: str = "rendered scenes on a small detector"
) -> None:
    """``--config FILE``; ``config`` in the result is a Path, or None for what ``without`` says."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"YAML file to start from (configs/ has the paper's); without it: {without}",
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse ``argv`` (None: the process's own); leaves with exit code 2 on an unknown option.

    From here on a character that the terminal lacks, such as × or ≥, is printed as an escape
    and does not end the run.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return parser.parse_intermixed_args(argv)


@dataclass(frozen=True)
class TrainArguments:
    """The command line of ``python -m megdet_hvd.train``."""

    config: Path | None
    """Configuration file; None: the embedded default, or the run folder's own with resume."""
    overrides: tuple[str, ...]
    """``key.sub=value`` each."""
    resume: bool
    """Carry on an earlier run."""
    run_folder: Path | None
    """The run to carry on; None: the newest one."""
    run: Path | None = None
    """The run to start, or to carry on where it has begun."""


_TRAIN = (
    "Train a detector. Alone it is one process; under a launcher, such as "
    "`horovodrun -np 2 python -m megdet_hvd.train`, all processes train one model."
)


def parse_train_arguments(
    argv: Sequence[str] | None = None, module: str = "megdet_hvd.train", summary: str = _TRAIN
) -> TrainArguments:
    """``[--config FILE] [--resume [RUN_FOLDER] | --run RUN_FOLDER] [key.sub=value ...]``.

    ``module`` is the program, and ``summary`` what it does: preflight and pipeline take the words
    that training takes.
    """
    parser = make_parser(module, summary)
    add_config_option(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN_FOLDER",
        help="carry on the run in this folder; without a folder: the newest one",
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN_FOLDER",
        help="start a run in this folder, or carry it on where it holds a checkpoint: for jobs "
        "that are requeued",
    )
    found = parse(parser, argv)
    overrides, folder = list(found.overrides), found.resume
    if folder and "=" in folder and not Path(folder).is_dir():
        # `--resume key=value`: argparse takes the setting for the folder.
        overrides.insert(0, folder)
        folder = ""
    return TrainArguments(
        config=found.config,
        overrides=tuple(overrides),
        resume=folder is not None,
        run_folder=Path(folder) if folder else None,
        run=found.run,
    )


def settings_help() -> str:
    """Every setting with type, default and docstring, group by group, as wide as the terminal."""
    width = min(_WIDEST, shutil.get_terminal_size().columns - 2)
    lines = textwrap.wrap(
        "settings (key.sub=value; the value is YAML, so lists are [640,800] and nothing is null; "
        "a default in brackets after another is that of the embedded run without --config):",
        width,
    )
    for group in groups():
        lines += ["", *textwrap.wrap(f"{group.path or 'top level'} — {_plain(group.doc)}", width)]
        for key in group.keys:
            lines.append(f"  {key.path}={_defaults(key)}")
            lines += textwrap.wrap(
                f"{key.kind}. {_plain(key.doc)}",
                width,
                initial_indent="      ",
                subsequent_indent="      ",
            )
    return "\n".join(lines) + "\n"


def _plain(doc: str) -> str:
    return prose(doc).replace("``", "")


def _defaults(key: Key) -> str:
    default, embedded = as_typed(key.default), embedded_value(key.path)
    return default if embedded in (..., key.default) else f"{default}  ({as_typed(embedded)})"
