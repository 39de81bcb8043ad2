"""``python -m megdet_hvd.submit [--check] [OPTIONS OF SBATCH] TEMPLATE [WORDS]``."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.cluster.job_array import take_arrays
from megdet_hvd.cluster.sbatch_options import read_options
from megdet_hvd.command import leave, name_of
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job_folder import find_job_folder
from megdet_hvd.storage import as_storage_error
from megdet_hvd.submit.check import Request, check, follow_words, job_environment
from megdet_hvd.submit.commands import ask
from megdet_hvd.submit.job import JOB_ID, JobRequest
from megdet_hvd.submit.refusals import explained
from megdet_hvd.submit.report import CheckReport
from megdet_hvd.version import version_line

USAGE = """\
usage: PROGRAM [--check] [--array KEY=A,B,C]
           [OPTIONS OF SBATCH] TEMPLATE [WORDS]
       PROGRAM --status RUN

Submits a template with the partition and account of slurm/site.sh, from any
folder, after a check of everything that can be looked at on a login node. Needs
no GPU and no torch.

  --check       only check, and print what would run
  --status RUN  where a run stands; RUN is its folder, or the number of its job,
                of an array (4711), or of a member (4711_2)
  --version     show the versions that are installed
  --array KEY=A,B,C
                one run for each value, as members of one array of Slurm;
                repeatable: all pairs of values; KEY=A,B,C%1: one at a time
  OPTIONS       as for sbatch, before the template: --nodes=2 --time=1:00:00
                (they win over slurm/site.sh, which wins over the template)
  TEMPLATE      such as slurm/megdet_128gpu.sbatch
  WORDS         passed on to megdet_hvd.train: learning.policy=long,
                --resume runs/NAME; and of the job's own: --evaluators N (the
                last N ranks evaluate while the others train), --placement,
                --preflight

The exit code is 0, or 2 with problems, which are named all at once; 6: the
storage fails at the moment.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Check, submit or show; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StorageError, OSError) as error:
        known = as_storage_error(error)
        if not isinstance(known, StorageError):
            raise
        print(f"error: {known}", file=sys.stderr)
        return 6


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(USAGE.replace("PROGRAM", name_of("megdet_hvd.submit")), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(version_line())
        return 0
    if words[0] == "--status" or words[0].startswith("--status="):
        return _status(words)
    arrays: list[str] = []
    options, rest = read_options(words, "the command line", {"array": arrays})
    only_check = options.pop("check", None) is not None
    if not rest:
        raise UserError("name a template, such as slurm/megdet_128gpu.sbatch (--help says more)")
    here = Path.cwd()
    root = find_job_folder(Path(rest[0]), here, os.environ)
    if root is None:
        raise UserError(
            f"{rest[0]}: no folder for jobs, which has slurm/job.sh: neither above that file, nor "
            f"here, nor in MEGDET_ROOT; {name_of('megdet_hvd.init')} FOLDER makes one"
        )
    behind, given = take_arrays(rest[1:])
    request = Request(options, rest[0], tuple(given), (*arrays, *behind))
    report, job = check(request, root, here)
    print("\n".join(report.lines()), flush=True)
    if report.problems or job is None:
        return 2
    return 0 if only_check else _submit(report, job, root)


def _submit(report: CheckReport, job: JobRequest, root: Path) -> int:
    environ = job_environment(root, os.environ)
    answer = ask(job.sbatch("--parsable"), environ=environ, cwd=root, time_s=None)
    job_id = answer.out.strip().splitlines()[-1].partition(";")[0] if answer.out.strip() else ""
    if answer.code != 0 or not job_id.isdecimal():
        raise UserError(f"sbatch did not take the job: {explained(answer.text)}")
    mark = "run folder: "
    folders = [fact.removeprefix(mark) for fact in report.facts if fact.startswith(mark)]
    folder = folders[0].replace(JOB_ID, job_id) if folders else None
    members = "" if job.array is None else f", an array of {len(job.array.members)}"
    print(f"\nsubmitted: job {job_id}{members}")
    print("\n".join(follow_words(job, job_id, root, folder)))
    return 0


def _status(words: list[str]) -> int:
    run = words[0].partition("=")[2] if "=" in words[0] else "".join(words[1:2])
    if not run or len(words) > 2:
        raise UserError("--status takes one run: its folder, or the number of its job")
    from megdet_hvd.submit.status import status

    here = Path.cwd()
    print("\n".join(status(run, find_job_folder(None, here, os.environ) or here)))
    return 0


if __name__ == "__main__":
    leave(main)
