"""All checks of a job, one after the other; none keeps the next from running."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.cluster.job_array import EXAMPLE, read_job_array
from megdet_hvd.cluster.limits import low_limits, raise_open_files
from megdet_hvd.cluster.network_card import check_count
from megdet_hvd.cluster.site import Site, find_site_file, read_site
from megdet_hvd.cluster.site_values import ARCHIVES
from megdet_hvd.cluster.template import read_template, shape
from megdet_hvd.command import name_of
from megdet_hvd.errors import UserError
from megdet_hvd.slurm_job import presets
from megdet_hvd.submit.job import JobRequest, make_job, quoted, whole_paths
from megdet_hvd.submit.places import check_data_root, check_environment, check_script
from megdet_hvd.submit.report import CheckReport
from megdet_hvd.submit.slurm import check_launcher, check_requeue, check_slurm
from megdet_hvd.submit.time_limit import check_time
from megdet_hvd.submit.writing import check_log
from megdet_hvd.wording import counted

_SLURM_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
"""Which Slurm to ask, and as whom."""


@dataclass(frozen=True)
class Request:
    """A command line."""

    options: Mapping[str, str]
    """For sbatch."""
    template: str
    words: tuple[str, ...]
    """Behind the template."""
    arrays: tuple[str, ...] = ()
    """Settings with several values: ``seed=0,1,2``."""


def check(request: Request, root: Path, here: Path) -> tuple[CheckReport, JobRequest | None]:
    """Look at everything.

    Args:
        request: what is to be submitted.
        root: the folder of jobs (:mod:`megdet_hvd.job_folder`), where it will run.
        here: the folder that the user's paths start from.

    Returns:
        What was found, and the job; None: there is no readable template.
    """
    report = CheckReport()
    site = _site(report, root)
    job = _job(report, request, site, root, here)
    check_environment(report, root, site, os.environ)
    check_data_root(report, site)
    check_script(report, root)
    if job is None:
        return report, None
    report.facts.insert(0, f"would run: env {quoted([f'MEGDET_ROOT={root}', *job.sbatch()])}")
    check_options(report, job, site, os.environ)
    report.facts.insert(1, f"job log: {job.log()} (paths start from {root})")
    check_log(report, job, root, os.environ)
    check_surroundings(report, job, os.environ)
    try:
        nodes, tasks = shape(job.all_options, job.template.name)
    except UserError as error:
        report.problem(error)
    else:
        try:
            check_count(site.network_cards, tasks)
        except UserError as error:
            report.problem(error)
        check_time(report, job, nodes * tasks, os.environ)
        _training(report, job, site, root, nodes, tasks)
        check_launcher(report, site, nodes)
    if check_slurm(report, job, root, job_environment(root, os.environ)):
        check_requeue(report, job)
    return report, job


def check_options(
    report: CheckReport, job: JobRequest, site: Site, environ: Mapping[str, str]
) -> None:
    """Options of sbatch that would make another job of it than the one that is checked."""
    indices = job.all_options.get("array") or environ.get("SBATCH_ARRAY_INX")
    if indices and job.array is None:
        report.problem(
            f"--array={indices}: the jobs would all be one and the same run; say what differs: "
            f"{EXAMPLE}"
        )
    export = job.all_options.get("export", environ.get("SBATCH_EXPORT"))
    if not export or "ALL" in export.split(","):
        return
    needed = ["MEGDET_SITE", "MEGDET_VENV", *([] if site.data_root else ["COCO_ROOT"])]
    lost = [name for name in needed if environ.get(name) and name not in export.split(",")]
    if lost:
        report.problem(
            f"--export={export} keeps {', '.join(lost)} from the job: leave it out, or put "
            "everything into slurm/site.sh and .venv of the project"
        )


def check_surroundings(report: CheckReport, job: JobRequest, environ: Mapping[str, str]) -> None:
    """What the job takes over from this shell: variables and limits."""
    export = job.all_options.get("export", environ.get("SBATCH_EXPORT")) or "ALL"
    found = presets.named(environ, ())
    if found and "ALL" in export.split(","):
        report.notes.append(
            f"set in this shell, and so for all ranks: {presets.shown(environ, found)}. A site's "
            "modules set such for an MPI of their own; what keeps this one from starting is left "
            "out by the job. In site_setup they count as asked for"
        )
    try:
        for line in low_limits(raise_open_files()):
            report.notes.append(f"limited in this shell, and so, mostly, in the job: {line}")
    except UserError as error:
        report.problem(error)


def job_environment(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Sbatch's environment: by default the job inherits it, whatever characters are in a value.

    (``--export=ALL,NAME=value`` could hold no comma.) Submitted from within another job, it would
    inherit that one's nodes and tasks in ``SLURM_`` variables: they stay behind.
    """
    found = {
        name: value
        for name, value in environ.items()
        if not name.startswith("SLURM_") or name in _SLURM_KEPT
    }
    return {**found, "MEGDET_ROOT": str(root)}


def _site(report: CheckReport, root: Path) -> Site:
    named = os.environ.get("MEGDET_SITE")
    file = (root / named) if named else find_site_file(root)
    if file is None:
        report.notes.append(
            f"{root}/slurm/site.sh is not there, so defaults count: cp slurm/site.example.sh "
            "slurm/site.sh"
        )
        return Site()
    if not file.is_file():
        report.problem(f"MEGDET_SITE={named}: no such file")
        return Site()
    try:
        return read_site(file)
    except UserError as error:
        report.problem(error)
        return Site()


def _job(
    report: CheckReport, request: Request, site: Site, root: Path, here: Path
) -> JobRequest | None:
    file = here / request.template
    if not file.is_file() and (root / request.template).is_file():
        file = root / request.template
    if not file.is_file():
        others = ", ".join(sorted(f"slurm/{path.name}" for path in root.glob("slurm/*.sbatch")))
        report.problem(f"{request.template}: no such template; there are {others or 'none'}")
        return None
    try:
        template = read_template(file.read_text(encoding="utf-8"), request.template)
        words = whole_paths(request.words, here, root)
        arrays = request.arrays
        try:
            read_job_array(arrays)
        except UserError as error:
            report.problem(error)
            arrays = ()  # all else is checked as for one job
        return make_job(
            template,
            Path(os.path.abspath(file)),
            site,
            request.options,
            words,
            os.environ,
            arrays,
        )
    except UnicodeDecodeError:
        report.problem(f"{request.template}: not a text file; a template is a shell script")
    except (OSError, UserError) as error:
        report.problem(str(error))
    return None


def _training(
    report: CheckReport, job: JobRequest, site: Site, root: Path, nodes: int, tasks: int
) -> None:
    try:
        from megdet_hvd.submit.members import check_members
    except ModuleNotFoundError as error:
        known = ("pydantic", "pydantic_core", "yaml", "filelock")
        if (error.name or "").partition(".")[0] not in known:
            raise
        report.notes.append(
            f"the configuration, its batch and its data were not checked: {sys.executable} lacks "
            f"{error.name}; use the environment's Python: install/run python -m megdet_hvd.submit"
        )
        report.facts.append(f"{counted(nodes, 'node')} × {counted(tasks, 'process')}")
        return
    root_of_data = site.data_root
    packed = root_of_data is not None and root_of_data.name.endswith(ARCHIVES)
    if root_of_data is not None and not packed:
        os.environ["COCO_ROOT"] = str(root_of_data)
    with chdir(root):
        check_members(report, job, nodes, tasks, data_is_packed=packed, launcher=site.launcher)


def follow_words(job: JobRequest, job_id: str, root: Path, folder: str | None) -> Sequence[str]:
    """What to do with a job that was submitted."""
    log = root / job.log(job_id)
    if job.array is not None:
        return [
            f"logs: {str(log).replace('%a', 'MEMBER')}",
            f"where they stand:  {name_of('megdet_hvd.submit')} --status {job_id}",
            f"where one stands:  {name_of('megdet_hvd.submit')} --status {job_id}_0",
            f"stop all, and resume later: scancel --batch --signal=USR2 {job_id} (one: {job_id}_0)",
            f"cancel all:        scancel {job_id} (one: {job_id}_0)",
        ]
    lines = [f"log: {log}"]
    if folder is not None:
        lines.append(f"run folder: {folder}")
    return [
        *lines,
        f"follow:            tail -F {quoted([str(log)])}",
        f"where it stands:   {name_of('megdet_hvd.submit')} --status {job_id}",
        f"stop, and resume later: scancel --batch --signal=USR2 {job_id}",
        f"cancel:            scancel {job_id}",
    ]
