"""The facts of a cluster that a user writes down once, in ``slurm/site.sh``.

bash reads the file in the job; here bash is asked what it sets. What the entries mean stands in
``slurm/site.example.sh``.
"""

import difflib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from megdet_hvd.cluster.site_values import value_readers
from megdet_hvd.cluster.srun_options import starts_container
from megdet_hvd.errors import UserError

_PREFIX = "SITE_"
_SHELL_S = 30
_ASK = """
exec 3>&1 1>&2
source "$1"
for name in "${!SITE_@}"; do
    attributes=$(declare -p "$name"); attributes=${attributes#declare -}
    case ${attributes%% *} in
        *[aA]*) printf '%s\\0%s\\0%s\\0' list "$name" "" >&3 ;;
        *) printf '%s\\0%s\\0%s\\0' text "$name" "${!name}" >&3 ;;
    esac
done
printf 'end\\0\\0\\0' >&3
"""


@dataclass(frozen=True)
class Site:
    """What ``slurm/site.sh`` says; an entry that it leaves out or empty has the default."""

    partition: str = ""
    """For ``sbatch --partition``; empty: Slurm's default."""
    account: str = ""
    """For ``sbatch --account``."""
    qos: str = ""
    """For ``sbatch --qos``."""
    sbatch_options: tuple[str, ...] = ()
    """More words for sbatch."""
    launcher: str = "auto"
    """One of ``site_values.LAUNCHERS``."""
    srun_mpi: str = "pmix"
    """For ``srun --mpi``."""
    srun_options: tuple[str, ...] = ()
    """More words for ``srun``, where it starts the ranks."""
    container: tuple[str, ...] = ()
    """Words before ``python``; empty: no container."""
    data_root: Path | None = None
    """Folder of the data, or an archive of it; ranks see the folder as COCO_ROOT."""
    staging: Path | None = None
    """Folder on every node's own disk; None: nothing is copied there."""
    environment: Path | None = None
    """Archive of the environment; None: ``.venv.tar`` beside the project, where there is one."""
    requeue_on_failure: int = 2
    """How often a job that failed through no fault of its user starts again."""
    bind: str = "cores"
    """One of ``site_values.BINDINGS``."""
    network_cards: tuple[str, ...] = ()
    """One for each local rank; empty: NCCL and UCX choose."""

    @property
    def in_container(self) -> bool:
        """Whether the ranks' Python is a container's."""
        return bool(self.container) or starts_container(self.srun_options)

    @property
    def wanted_launcher(self) -> str:
        """``launcher``, which is srun where it was left to the job and srun has options."""
        return "srun" if self.srun_options and self.launcher == "auto" else self.launcher


def site_from_variables(variables: Mapping[str, str]) -> Site:
    """The site that variables named ``SITE_…`` describe; all others are passed over.

    A centre may export SITE_ variables of its own, so a name that is like none of ours is passed
    over as well.

    Raises:
        UserError: a value that can't be, or a misspelt name; all of them, one a line.
    """
    return _site(variables, strict=frozenset())


def find_site_file(root: Path) -> Path | None:
    """``slurm/site.sh`` of the project in ``root``, where the user has made it."""
    file = root / "slurm" / "site.sh"
    return file if file.is_file() else None


def read_site(file: Path) -> Site:
    """What the file says. bash reads it, and runs none of the functions in it.

    Raises:
        UserError: the shell complains about a line, or entries are wrong; names all of them.
    """
    variables = read_variables(file)
    before = {name for name, value in variables.items() if os.environ.get(name) == value}
    try:
        return _site(variables, strict=frozenset(variables) - before)
    except UserError as error:
        lines = str(error).splitlines()
        head = "1 entry is" if len(lines) == 1 else f"{len(lines)} entries are"
        raise UserError("\n".join([f"{file}: {head} wrong", *(f"  {x}" for x in lines)])) from None


def read_variables(file: Path) -> dict[str, str]:
    """The SITE_ variables as bash has them after reading the file. Raises UserError."""
    place = file.resolve()
    environ = {"MEGDET_ROOT": str(place.parent.parent), **os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["bash", "-c", _ASK, "bash", place],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SHELL_S,
            env=environ,
        )
    except FileNotFoundError:
        raise UserError(f"{file}: bash is needed to read it, and is not on PATH") from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{file}: bash did not finish reading it in {_SHELL_S} s; what takes time, such as "
            "module load, belongs in the function site_setup"
        ) from None
    complaints = _complaints(file, place, done.stderr.decode(errors="replace"))
    if complaints:
        raise UserError("\n".join([f"{file}: bash can't read it", *complaints]))
    parts = done.stdout.decode(errors="replace").split("\0")
    rows = [parts[i : i + 3] for i in range(0, len(parts) - 2, 3)]
    if not rows or rows[-1][0] != "end":
        raise UserError(
            f"{file}: ends the shell that reads it (exit code {done.returncode}); take out exit, "
            "exec and set -e"
        )
    lists = [name for kind, name, _ in rows if kind == "list"]
    if lists:
        raise UserError(
            f"{file}: {lists[0]} is a bash list, which can't be handed on; write one text: "
            f'{lists[0]}="first second"'
        )
    return {name: value for kind, name, value in rows if kind == "text"}


def _complaints(file: Path, place: Path, text: str) -> list[str]:
    """What the shell says about lines of the file, each with the line it means."""
    lines = (
        place.read_text(encoding="utf-8", errors="replace").splitlines() if place.is_file() else []
    )
    found = []
    for line in text.splitlines():
        match = re.match(rf"{re.escape(str(place))}: (?:line (\d+): )?(.*)", line)
        if match is None:
            if line.startswith("bash: ") and str(place) in line:
                found.append(f"  {line.removeprefix('bash: ')}")
            continue
        number = int(match[1] or 0)
        found.append(f"  line {number}: {match[2]}" if number else f"  {match[2]}")
        if 0 < number <= len(lines) and re.match(
            r"\s*SITE_\w+\s+=|\s*SITE_\w+=\s", lines[number - 1]
        ):
            name = lines[number - 1].split("=")[0].strip()
            found.append(f'  a value stands right behind the sign, in quotes: {name}="value"')
    return found


def _site(variables: Mapping[str, str], strict: frozenset[str]) -> Site:
    """``strict``: names that must be ours."""
    readers = value_readers()
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name in sorted(variables):
        if not name.startswith(_PREFIX):
            continue
        text = variables[name].strip()
        field = name.removeprefix(_PREFIX).lower()
        if name.isupper() and field in readers:
            if text:
                try:
                    values[field] = readers[field](name, text)
                except UserError as error:
                    problems.append(str(error))
            continue
        near = _nearest(field, name in strict)
        if near:
            problems.append(f"{name}: no such entry; nearest: {near}")
    if problems:
        raise UserError("\n".join(problems))
    site = Site(**values)
    if site.srun_options and site.wanted_launcher != "srun":
        raise UserError(
            f"SITE_SRUN_OPTIONS: nothing takes them with SITE_LAUNCHER={site.launcher}; set "
            "SITE_LAUNCHER=srun, or leave them out"
        )
    if site.container and starts_container(site.srun_options):
        raise UserError(
            "SITE_CONTAINER and a container of SITE_SRUN_OPTIONS: the ranks run in one of them; "
            "leave the other out"
        )
    return site


def _nearest(field: str, strict: bool) -> str:
    """Names of entries like ``field``; empty where it is like none and need not be ours."""
    known = [f.name for f in fields(Site)]
    near = difflib.get_close_matches(field, known, n=2, cutoff=0.75)
    if not near and strict:
        near = difflib.get_close_matches(field, known, n=3, cutoff=0.0)
    return ", ".join(f"{_PREFIX}{name.upper()}" for name in near)
