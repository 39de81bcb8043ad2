"""``python -m megdet_hvd.slurm_job WORDS…``: called by ``slurm/job.sh`` in a batch script."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.cluster.allocation import read_allocation
from megdet_hvd.cluster.driver_variables import NOTE, SITE_EXPORTS
from megdet_hvd.cluster.job_array import member_words
from megdet_hvd.cluster.site import site_from_variables
from megdet_hvd.errors import STORAGE_ERROR, USER_ERROR, StorageError, UserError
from megdet_hvd.slurm_job import presets
from megdet_hvd.slurm_job.after import requeue_before_start
from megdet_hvd.slurm_job.driver import run_job
from megdet_hvd.slurm_job.job import BatchJob, say
from megdet_hvd.slurm_job.job_arguments import read_job_arguments
from megdet_hvd.storage import as_storage_error


def main(words: Sequence[str] | None = None) -> int:
    """Run the job this process is in; returns its exit code."""
    try:
        allocation = read_allocation(os.environ)
        if NOTE not in os.environ:
            raise UserError(f"{NOTE} is not set: this is started by slurm/job.sh")
        strays = presets.identity(os.environ, os.environ.get(SITE_EXPORTS, "").split())
        if strays:
            say(f"left out, another launcher's: {presets.shown(os.environ, strays)}")
        for name in strays:
            del os.environ[name]
        site = site_from_variables(os.environ)
        if site.data_root is not None:  # configurations name it; staging may move it later
            os.environ.setdefault("COCO_ROOT", str(site.data_root))
        given = member_words(sys.argv[1:] if words is None else words, allocation.member)
        name = allocation.name.replace("/", "_")  # it becomes one folder's
        arguments = read_job_arguments(given, f"{name}-{allocation.slurm_id}")
        os.environ.setdefault("MEGDET_ROOT", str(Path.cwd()))
        return run_job(BatchJob(allocation, site, arguments), os.environ)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_ERROR
    except (StorageError, OSError) as raised:
        failing = as_storage_error(raised)
        if not isinstance(failing, StorageError):
            raise
        print(f"error: {failing}", file=sys.stderr, flush=True)
        requeue_before_start(os.environ)
        return STORAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
