"""Slurm's own answers, of version 22.05, with texts of a user's that look like fields."""

import pytest

from megdet_hvd.scontrol import read_job, read_records

ARRAY = """\
JobId=1 ArrayJobId=1 ArrayTaskId=2 ArrayTaskThrottle=2 JobName=na me JobState=FAILED
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=PENDING Reason=JobArrayTaskLimit Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   Partition=gpu AllocNode:Sid=localhost:2240
   NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   TRES=cpu=1,mem=500000M,node=1,billing=1
   Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=*
   Command=/work of mine/a b/job x.sh seed=3 --config x y
   WorkDir=/work of mine/a b
   Comment=my JobState=FAILED comment
in two lines: Restarts=7
   Restarts=8
   StdErr=/work of mine/o b-1_2.log
   StdIn=/dev/null
   StdOut=/work of mine/o b-1_2.log
   Power=


JobId=3 ArrayJobId=1 ArrayTaskId=1 ArrayTaskThrottle=2 JobName=na me
   UserId=me(1000) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)

"""
NODES = """\
NodeName=n1 Arch=x86_64 CoresPerSocket=32
   CPUAlloc=0 CPUEfctv=64 CPUTot=64 CPULoad=5.15
   OS=Linux 6.18.44-fc-v657 #1 SMP PREEMPT_DYNAMIC @0
   State=DOWN+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
   Partitions=gpu,urgent
   Reason=not responding, State=IDLE before [root@2026-11-28T10:11:20]

NodeName=n2 Arch=x86_64 CoresPerSocket=32
   State=IDLE ThreadsPerCore=1
"""


def test_texts_end_their_lines_and_are_no_fields() -> None:
    job, other = read_records(ARRAY)
    assert job["JobName"] == "na me JobState=FAILED"
    assert (job["JobState"], job["Reason"], job["Restarts"]) == (
        "PENDING",
        "JobArrayTaskLimit",
        "0",
    )
    assert job["Command"] == "/work of mine/a b/job x.sh seed=3 --config x y"
    assert job["WorkDir"] == "/work of mine/a b"
    assert job["StdOut"] == "/work of mine/o b-1_2.log"
    assert job["Comment"] == "my JobState=FAILED comment"
    assert (job["CPUs/Task"], job["TRES"][:9], job["Power"]) == ("1", "cpu=1,mem", "")
    assert job["AllocNode:Sid"] == "localhost:2240" and "seed" not in job
    assert (other["UserId"], other["Dependency"]) == ("me(1000)", "(null)")


@pytest.mark.parametrize(
    ("job", "task"), [(1, "2"), ("1", "2"), (3, "1"), ("1_2", "2"), ("1_1", "1"), (2, None)]
)
def test_one_job_of_an_array(job: int | str, task: str | None) -> None:
    """The array's number is one of its members', too."""
    assert read_job(ARRAY, job).get("ArrayTaskId") == task


def test_nodes() -> None:
    first, second = read_records(NODES)
    assert (first["State"], second["State"]) == ("DOWN+DRAIN", "IDLE")
    assert first["OS"].endswith("@0") and first["Reason"].startswith("not responding, State=IDLE")
    assert read_records("slurm_load_jobs error: Invalid job id specified\n") == []
