"""A job's training looked at, or that of each member of an array; needs pydantic and yaml."""

from collections import Counter
from typing import Any

from megdet_hvd.cluster.job_array import OPTION
from megdet_hvd.errors import UserError
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.report import CheckReport
from megdet_hvd.submit.training import check_training, problems_of_values

RUN_FOLDER = "run folder: "


def check_members(
    report: CheckReport, job: JobRequest, nodes: int, tasks: int, **more: Any
) -> None:
    """Every member of an array; what holds for all of them is said once.

    Args:
        report: takes what is found.
        job: the job, or the array.
        nodes: machines of each member.
        tasks: processes on each.
        more: for :func:`megdet_hvd.submit.training.check_training`.
    """
    if job.array is None:
        check_training(report, job, nodes, tasks, **more)
        return
    try:
        members = job.members
        if problems := problems_of_values(job):
            raise UserError("\n".join(problems))
    except UserError as error:
        report.problem(error)
        return
    found = []
    for member in members:
        found.append(CheckReport())
        check_training(found[-1], member, nodes, tasks, **more)
    names = [f"member {i} ({' '.join(settings)})" for i, settings in enumerate(job.array.members)]
    report.facts.append(
        f"{len(members)} jobs, as members of one array (sbatch --array={job.array.indices})"
    )
    for kind in ("facts", "notes", "problems"):
        merge(getattr(report, kind), names, [getattr(one, kind) for one in found])
    folders = [x for one in found for x in one.facts if x.startswith(RUN_FOLDER)]
    shared = [folder for folder, count in Counter(folders).items() if count > 1]
    if shared:
        report.problem(
            f"{OPTION}: the members would share the {shared[0]}; leave name=, --run and --resume "
            "out, so that each has a folder of its own"
        )


def merge(into: list[str], names: list[str], found: list[list[str]]) -> None:
    """Lines that all members have, once; then each member's own, behind its name."""
    common = [line for line in found[0] if all(line in lines for lines in found)]
    into += [line for line in common if line not in into]
    for name, lines in zip(names, found, strict=True):
        own = [line for line in lines if line not in common]
        if own:
            into.append(f"{name}: {'; '.join(own)}")
