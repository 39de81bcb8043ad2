"""A site's own options of ``srun``, for the step that starts the ranks. Pure.

pyxis brings ``--container-image``, a fabric ``--network``. What the job's driver sets itself is
refused: the two would contradict each other.
"""

import re
from collections.abc import Sequence

from megdet_hvd.errors import UserError

_JOB = "it follows from the job: --nodes, --ntasks-per-node and --cpus-per-task of sbatch"
_LOGS = "each rank's output has its file in the run folder's logs/"
_WATCHDOG = "the ranks' watchdog ends the job, once it has said which rank failed and why"
_STEP = "the ranks are one step of the job itself"
REFUSED = {
    "mpi": "SITE_SRUN_MPI names it",
    "nodes": _JOB,
    "ntasks": _JOB,
    "ntasks-per-node": _JOB,
    "tasks-per-node": _JOB,
    "cpus-per-task": _JOB,
    "distribution": "ranks fill one node after the other, as BN groups and local ranks need it",
    "cpu-bind": "SITE_BIND says it",
    "kill-on-bad-exit": _WATCHDOG,
    "no-kill": _WATCHDOG,
    "wait": _WATCHDOG,
    "export": "the ranks need the job's variables; what site_setup exports reaches them",
    "export-file": "the ranks need the job's variables; what site_setup exports reaches them",
    "output": _LOGS,
    "error": _LOGS,
    "input": "the ranks read no input",
    "label": _LOGS,
    "chdir": "the ranks start in the project's folder",
    "jobid": _STEP,
    "het-group": _STEP,
    "pack-group": _STEP,
    "multi-prog": _STEP,
    "pty": _STEP,
    "test-only": "no rank would start",
    "help": "no rank would start",
    "usage": "no rank would start",
    "version": "no rank would start",
}
"""Names of options, and why they are refused."""
_CONTAINERS = ("container", "container-image", "container-name")


def read_srun_options(name: str, text: Sequence[str]) -> tuple[str, ...]:
    """The words of an entry, checked.

    Args:
        name: the entry's, for messages.
        text: its words.

    Raises:
        UserError: a word that is no ``--name`` or ``--name=value``, or an option of the driver's.
    """
    for word in text:
        if not re.fullmatch(r"--[A-Za-z][\w-]*(=.*)?", word, re.DOTALL):
            raise UserError(
                f"{name}: {word}: options of srun stand there as --name or --name=value, in their "
                "long form, such as --container-image=/images/x.sqsh"
            )
        option = _name(word)
        refused = next((one for one in REFUSED if one.startswith(option)), None)
        if refused is not None:
            raise UserError(f"{name}: --{refused} can't be set there: {REFUSED[refused]}")
    return tuple(text)


def starts_container(options: Sequence[str]) -> bool:
    """Whether these options start the ranks in a container, whose Python is theirs then."""
    return any(_name(word) in _CONTAINERS for word in options)


def step_options(options: Sequence[str], root: str) -> list[str]:
    """A site's options as the ranks are started with them: they start in the project's folder.

    pyxis would take the image's own folder.
    """
    names = {_name(word) for word in options}
    inside = names & {"container-image", "container-name"}
    if not inside or "container-workdir" in names:
        return list(options)
    return [*options, f"--container-workdir={root}"]


def container_image(options: Sequence[str]) -> str | None:
    """What pyxis' ``--container-image`` names; None: nothing."""
    images = [word.partition("=")[2] for word in options if _name(word) == "container-image"]
    return images[-1] if images else None


def _name(word: str) -> str:
    return word[2:].partition("=")[0].replace("_", "-")
