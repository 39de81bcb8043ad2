"""Whether Slurm would take the job, asked with the very options, and how ranks would start."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from megdet_hvd.cluster.launchers import pmix_of
from megdet_hvd.cluster.site import Site
from megdet_hvd.cluster.step_environ import step_environ
from megdet_hvd.submit.commands import ask
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.refusals import explained
from megdet_hvd.submit.report import CheckReport


def check_slurm(
    report: CheckReport, job: JobRequest, root: Path, environ: Mapping[str, str]
) -> bool:
    """``sbatch --test-only``; False: there is no Slurm to ask."""
    answer = ask(job.sbatch("--test-only"), environ=environ, cwd=root)
    if answer.no_cluster:
        lines = answer.text.splitlines()
        report.notes.append(
            f"Slurm was not asked: {lines[-1] if lines else 'no answer'}. Partition, account, "
            "nodes and time are unchecked; what needs no Slurm is checked"
        )
        return False
    if answer.code != 0:
        report.problem(f"Slurm refuses the job: {explained(answer.text)}")
    else:
        told = [line.removeprefix("sbatch: ") for line in answer.text.splitlines() if line.strip()]
        report.facts += [f"Slurm accepts it: {line}" for line in told[-1:]]
    return True


def check_requeue(report: CheckReport, job: JobRequest) -> None:
    """Whether Slurm requeues the job; where it does not, the job submits one that follows it."""
    asked = [word for word in ("requeue", "no-requeue") if word in job.options]
    asked = asked or [word for word in ("requeue", "no-requeue") if word in job.template_options]
    off = "--no-requeue" if asked == ["no-requeue"] else None
    if not asked:
        config = ask(["scontrol", "show", "config"])
        off = "JobRequeue=0" if re.search(r"JobRequeue\s*=\s*0\b", config.out) else None
    if off is not None:
        report.notes.append(
            f"Slurm will not requeue this job ({off}): where it is stopped with a checkpoint, or "
            "fails, it submits another one that carries the run on (--dependency=afterany), under "
            "a number of its own; nodes that may not call sbatch leave that to you. --requeue "
            "before the template asks for requeues"
        )


def check_srun_options(report: CheckReport, site: Site) -> None:
    """Whether ``srun`` has them: a site's plugins bring their own."""
    if not site.srun_options:
        return
    report.facts.append(f"options of srun: {shlex.join(site.srun_options)}")
    answer = ask(["srun", "--help"], environ=step_environ(os.environ))
    if answer.code != 0:
        return
    for word in site.srun_options:
        if word.partition("=")[0] not in re.findall(r"--[\w-]+", answer.out):
            report.notes.append(
                f"SITE_SRUN_OPTIONS: srun --help lists no {word.partition('=')[0]} here; is its "
                "plugin (pyxis, say) there on the nodes?"
            )


def check_launcher(report: CheckReport, site: Site, nodes: int) -> None:
    """Whether ``srun`` has what starts MPI programs; the nodes themselves are tried in the job."""
    if site.wanted_launcher in ("auto", "srun"):
        check_srun_options(report, site)
        answer = ask(["srun", "--mpi=list"], environ=step_environ(os.environ))
        plugin = pmix_of(answer.text, site.srun_mpi)
        if answer.no_cluster or answer.code != 0:
            report.notes.append("launcher unchecked: srun --mpi=list does not answer here")
        elif plugin is not None:
            report.facts.append(
                f"launcher: srun --mpi={plugin}"
                + (
                    ", or mpirun where MPI does not share it"
                    if site.wanted_launcher == "auto"
                    else ""
                )
            )
        elif site.wanted_launcher == "srun":
            report.problem(
                f"SITE_LAUNCHER=srun: srun --mpi=list has no {site.srun_mpi} (it says: "
                f"{' '.join(answer.text.split())}); set SITE_SRUN_MPI to one that MPI knows, or "
                "SITE_LAUNCHER=mpirun"
            )
        else:
            report.facts.append(f"launcher: mpirun (srun --mpi=list has no {site.srun_mpi})")
        return
    report.facts.append(f"launcher: {site.launcher} (SITE_LAUNCHER)")
    if site.launcher == "horovodrun" and nodes > 1:
        report.notes.append(
            "horovodrun starts processes on other nodes through ssh; where the site forbids it "
            "the job says so and ends: then set SITE_LAUNCHER=mpirun"
        )
