"""Every template through real ``sbatch``: the right number of processes in the right places."""

import json
import re
import shlex
import sys
from pathlib import Path

from megdet_hvd.bench.start_ranks import summed_up, table
from megdet_hvd.init import lay_out, link_environment
from tests.slurm.coco import write_coco
from tests.slurm.lab import ROOT, Lab, hosts_file_has, project_copy, scenario

PLACE = re.compile(
    r"rank (\d+) of (\d+) on (\w+): local rank (\d+) of (\d+), "
    r"node (\d+) of (\d+) \(cross rank (\d+) of (\d+)\), GPU (\d+)"
)

MACHINE = re.compile(r"(n\d+): ranks? ([\d-]+), local size (\d+), cross size (\d+)")


@scenario
def test_all_128_tasks_start_where_they_belong(lab: Lab) -> None:
    """With the product's own launch and placement code, and nothing that takes memory."""
    site = {"SITE_NETWORK_CARDS": " ".join(f"mlx5_{n}" for n in range(8))}
    job = lab.sbatch("megdet_128gpu.sbatch", "--placement", f"output={lab.runs}", site=site)
    assert job.wait() == "COMPLETED", job.log
    found = sorted(
        tuple(int(x) if x.isdigit() else x for x in line.groups())
        for line in PLACE.finditer(job.log)
    )
    expected = [
        (rank, 128, f"n{rank // 8 + 1}", rank % 8, 8, rank // 8 + 1, 16, rank // 8, 16, rank % 8)
        for rank in range(128)
    ]
    assert found == expected
    cards = sorted(map(int, re.findall(r"local rank (\d) .*, network card mlx5_\1,", job.log)))
    assert cards == [n for n in range(8) for _ in range(16)], job.log
    assert not hosts_file_has("n16"), "two machines are names of this cluster alone"


@scenario
def test_processes_of_many_nodes_meet_and_are_watched(lab: Lab) -> None:
    """A training's start, all but torch and Horovod, on 16 nodes: 2 tasks each, for two cores."""
    found = lab.folder / "starts.json"
    side = f"{sys.executable} -m megdet_hvd.bench.start_ranks_side --out {shlex.quote(str(found))}"
    options = ["--nodes=16", "--ntasks-per-node=2", "--licenses=turn", "--output=%x-%j.log"]
    options += ["--job-name=starts", "--wrap", f"srun --mpi=pmix --kill-on-bad-exit=1 {side}"]
    environ = {**lab.environ({}), "PYTHONPATH": str(ROOT)}
    number = lab.cluster.run("sbatch", "--parsable", *options, cwd=lab.folder, environ=environ)
    lab.wait_for(int(number.strip()))
    records = json.loads(found.read_text(encoding="utf-8"))
    start = summed_up(records, min(record["created"] for record in records))
    print("\n".join(table({len(records): [start]})))
    assert len(records) == 32 and start["watched"]
    assert start["heard_bytes"]["others"] < start["heard_bytes"]["rank_0"] / 4
    assert start["watchdog_lines"]["rank_0"] >= 31 > start["watchdog_lines"]["others"]


@scenario
def test_placement_under_mpirun_from_a_folder_with_a_space(lab: Lab) -> None:
    """And where jobs get none of the shell's variables, so that the site file says it all."""
    project = project_copy(lab.folder / "my project's copy")
    (project / ".venv").symlink_to(Path(sys.executable).parents[1])
    (project / "slurm" / "site.sh").write_text(
        'SITE_LAUNCHER=mpirun\nSITE_NETWORK_CARDS="a a a a b b b b"\n'
    )
    words = ("--placement", f"output={lab.folder / 'my runs'}")
    job = lab.sbatch("megdet_16gpu.sbatch", *words, options=("--export=NONE",), cwd=project)
    assert job.wait() == "COMPLETED", job.log
    assert "started by: mpirun" in job.log, job.log
    found = sorted((int(m[1]), m[3], int(m[4]), int(m[10])) for m in PLACE.finditer(job.log))
    assert found == [(rank, found[rank][1], rank % 8, rank % 8) for rank in range(16)]
    assert len({host for _, host, _, _ in found[:8]}) == 1
    assert len({host for _, host, _, _ in found}) == 2
    assert f"run folder: {lab.folder}/my runs/" in job.log
    assert len(re.findall(r"local rank [0-3] .*, network card a,", job.log)) == 8, job.log


@scenario
def test_placement_from_a_folder_of_megdet_init(lab: Lab) -> None:
    """It has no package in it: that is the environment's, here an editable one."""
    jobs = lab.folder / "my jobs"
    lay_out(ROOT, jobs)
    assert link_environment(jobs, Path(sys.prefix))[0]
    site = f"site_setup() {{ export PYTHONPATH={shlex.quote(str(ROOT))}; }}\n"
    (jobs / "slurm" / "site.sh").write_text(site)
    job = lab.sbatch("megdet_16gpu.sbatch", "--placement", options=("--export=NONE",), cwd=jobs)
    assert job.wait() == "COMPLETED", job.log
    assert sorted(int(m[1]) for m in PLACE.finditer(job.log)) == list(range(16))
    assert f"run folder: {jobs}/runs/megdet_16gpu-" in job.log


@scenario
def test_every_template_starts_its_world(lab: Lab) -> None:
    """Horovod and MPI up to the end of the preflight; large ones with fewer tasks on a node."""
    write_coco(lab.folder / "coco")
    sizes = {8: (1, 8), 16: (2, 4), 32: (4, 2), 64: (8, 1), 128: (16, 1)}
    jobs = {
        gpus: lab.sbatch(
            f"megdet_{gpus}gpu.sbatch",
            *("--preflight", "device=cpu", f"output={lab.runs}"),
            options=() if tasks == 8 else (f"--ntasks-per-node={tasks}",),
        )
        for gpus, (nodes, tasks) in sizes.items()
    }
    for gpus, (nodes, tasks) in sizes.items():
        job = jobs[gpus]
        assert job.wait() == "COMPLETED", job.log
        machines = [(m[1], m[2], int(m[3]), int(m[4])) for m in MACHINE.finditer(job.log)]
        assert len({host for host, *_ in machines}) == nodes, job.log
        expected = [ranks_of(node, tasks) for node in range(nodes)]
        assert [tuple(rest) for _, *rest in machines] == [(r, tasks, nodes) for r in expected]
        assert f"{plural(nodes * tasks, 'rank')} on {plural(nodes, 'machine')}" in job.log


def ranks_of(node: int, tasks: int) -> str:
    """``8-15``, as the product writes it."""
    first = node * tasks
    return str(first) if tasks == 1 else f"{first}-{first + tasks - 1}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
