"""A batch script of ``slurm/``, read: what it asks Slurm for, and what it trains.

A template is its #SBATCH lines and one call, ``train --config FILE "$@"``.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megdet_hvd.cluster.sbatch_options import read_options, whole_number
from megdet_hvd.errors import UserError

CALL = "train"
"""The shell function of ``slurm/job.sh`` that a template calls."""


@dataclass(frozen=True)
class Template:
    """What stands in a batch script."""

    options: Mapping[str, str]
    """Its #SBATCH lines: long name to value, empty for a flag."""
    words: tuple[str, ...]
    """What it gives to ``train``; ``$@`` stands for what the user gives."""

    def arguments(self, given: Sequence[str] = ()) -> list[str]:
        """The words of ``python -m megdet_hvd.train``, with the user's in their place."""
        words: list[str] = []
        for word in self.words:
            words += given if word in ("$@", "$*") else [word]
        return words


def read_template(text: str, name: str = "the template") -> Template:
    """Read a batch script; nothing is run.

    Args:
        text: the script.
        name: begins messages.

    Raises:
        UserError: an option that sbatch has not, a line that can't be read, or no call of
            ``train`` that passes the user's words on; all of them, one a line.
    """
    problems: list[str] = []
    options: dict[str, str] = {}
    lines = text.splitlines()
    if not lines or not lines[0].startswith("#!"):
        problems.append(f"{name}: the first line must be #!/bin/bash, or sbatch refuses it")
    head = True
    for number, line in enumerate(lines, 1):
        if line.startswith("#SBATCH"):
            try:
                found = _directive(line, f"{name} line {number}")
            except UserError as error:
                problems.append(str(error))
                continue
            if head:
                options.update(found)
            else:
                problems.append(
                    f"{name} line {number}: sbatch passes over #SBATCH lines behind the first "
                    "command; move it up"
                )
        elif line.strip() and not line.lstrip().startswith("#"):
            head = False
    words = _call(text)
    if words is None:
        problems.append(
            f'{name}: nothing is trained: a line such as {CALL} --config FILE "$@" is missing'
        )
    elif "$@" not in words:
        problems.append(
            f'{name}: what stands behind the template is lost: end the call of {CALL} with "$@"'
        )
    if problems:
        raise UserError("\n".join(problems))
    assert words is not None
    return Template(options, words)


def shape(options: Mapping[str, str], name: str = "the template") -> tuple[int, int]:
    """Nodes, and tasks on each.

    Raises:
        UserError: they are not said, not one number, or don't fit ``--ntasks``.
    """
    nodes = whole_number(options, "nodes", name)
    if "ntasks" not in options:
        return nodes, whole_number(options, "ntasks-per-node", name)
    tasks = whole_number(options, "ntasks", name)
    if tasks % nodes:
        raise UserError(
            f"{name}: --ntasks={tasks} does not divide over --nodes={nodes} "
            f"({tasks} % {nodes} = {tasks % nodes})"
        )
    each = tasks // nodes
    if "ntasks-per-node" in options:
        said = whole_number(options, "ntasks-per-node", name)
        if said != each:
            raise UserError(
                f"{name}: --nodes={nodes} × --ntasks-per-node={said} = {nodes * said} tasks, not "
                f"--ntasks={tasks}; leave --ntasks out"
            )
    return nodes, each


def _directive(line: str, where: str) -> dict[str, str]:
    try:
        words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
    except ValueError as error:
        raise UserError(f"{where}: the quotes don't match ({error})") from None
    options, rest = read_options(words, where)
    if rest:
        raise UserError(f"{where}: {rest[0]!r} is no option; an option begins with --")
    return options


def _call(text: str) -> tuple[str, ...] | None:
    """The words behind ``train``, of the last call."""
    found = None
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # a quote over several lines: no call of ours
        if words and words[0] == CALL:
            found = tuple(words[1:])
    return found
