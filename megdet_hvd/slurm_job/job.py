"""What a job knows once its words are read, where its files lie, and what it says."""

from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.checkpoint.naming import iteration_of, list_checkpoints
from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.site import Site
from megdet_hvd.slurm_job import record
from megdet_hvd.slurm_job.job_arguments import JobArguments


@dataclass(frozen=True)
class BatchJob:
    """What a job knows once its words are read."""

    allocation: Allocation
    site: Site
    arguments: JobArguments

    @property
    def logs(self) -> Path:
        """Where this attempt's files lie, in the run folder."""
        name = f"{self.allocation.slurm_id}-{self.allocation.restarts}"
        return self.arguments.folder / "logs" / name

    @property
    def stop_file(self) -> Path:
        """Where rank 0 looks for the stop request: in a container, too, the run folder is there."""
        return self.logs / "stop"

    @property
    def outcome(self) -> Path:
        """Where the ranks say how they ended."""
        return self.logs / "outcome.json"


def say(text: str) -> None:
    """A line of the driver's own, in the job's log."""
    print(f"job: {text}", flush=True)


def newest(job: BatchJob) -> int:
    """Steps that the run's newest checkpoint holds; -1: there is none."""
    found = list_checkpoints(job.arguments.folder / "checkpoints")
    steps = iteration_of(found[-1]) if found else None
    return -1 if steps is None else steps


def note(job: BatchJob, event: str, **values: object) -> None:
    """A line in the run's ``jobs.jsonl``; that it can't be written is a line of the log."""
    allocation = job.allocation
    own: dict[str, object] = {"job": allocation.job, "restart": allocation.restarts}
    if allocation.array is not None:
        own["slurm_id"] = allocation.slurm_id
    try:
        record.append(job.arguments.folder, event, **own, **values)
    except OSError as error:
        say(f"{job.arguments.folder / record.FILE}: can't be written ({error.strerror})")
