"""A job that waits for another, and carries on the run which that one will make."""

import re
from pathlib import Path

from megdet_hvd.checkpoint.naming import no_run_words
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.queue import ask_queue
from megdet_hvd.submit.report import CheckReport


def jobs_waited_for(dependency: str) -> list[str]:
    """The numbers in sbatch's ``afterany:12:13,afterok:14+10?singleton``."""
    return re.findall(r":(\d+)", dependency)


def will_be_there(report: CheckReport, job: JobRequest, folder: Path) -> bool:
    """Whether a run folder that is not there yet will be once the job starts.

    It is named after the job that makes it. What speaks against it is a problem of the report.
    """
    dependency = job.all_options.get("dependency", "")
    waited = jobs_waited_for(dependency)
    own = re.fullmatch(r"(?P<name>.+)-(?P<job>\d+)", folder.name)
    if "singleton" in dependency and own is not None and own["name"] == job.name:
        waited.append(own["job"])
    for number in dict.fromkeys(waited):
        queued, why_not = ask_queue(number)
        if why_not is not None:
            report.notes.append(
                f"--resume {folder}: not there yet, and Slurm was not asked whether job {number} "
                f"will make it: {why_not}"
            )
            return True
        if queued is None:
            continue
        made = f"{queued.name.replace('/', '_')}-{number}"
        if folder.name == made:
            report.notes.append(
                f"--resume {folder}: job {number} will have made it; it is carried on with that "
                "run's own configuration, of which nothing could be checked"
            )
            return True
        report.problem(
            f"--resume {folder}: job {number}, which this one waits for, makes …/{made} (unless it "
            "was given name= or --run); for jobs that share a run whatever makes it: --run FOLDER "
            "with each of them"
        )
        return False
    if own is not None and not waited and ask_queue(own["job"])[0] is not None:
        report.problem(
            f"--resume {folder}: not there yet: job {own['job']} is still in the queue; "
            f"--dependency=afterany:{own['job']} before the template waits for its end"
        )
        return False
    report.problem(f"--resume: {no_run_words(folder)}")
    return False
