"""What the tests on a real Slurm share: jobs submitted from templates, and what became of them."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from tests.engine.small import SETTINGS
from tests.slurm.mini_cluster import MiniCluster

ROOT = Path(__file__).resolve().parents[2]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
_LOOK_S = 0.3
_HELD_S = 2.0

Scenario = Callable[["Lab"], None]


def scenario(function: Scenario) -> Callable[[Any], None]:
    """A test that runs beside the others: nearly all of its time is waiting for Slurm."""

    @wraps(function)
    def test(running: dict[Scenario, Any]) -> None:
        running[function].result()

    del test.__wrapped__  # pytest would ask for its parameters
    test.scenario = function  # type: ignore[attr-defined]
    return test


class Lab:
    """A user's shell in front of the cluster, with a folder of its own."""

    def __init__(self, cluster: MiniCluster, folder: Path, end_s: float) -> None:
        """``end_s``: by ``time.monotonic()``, when nothing is waited for any more."""
        self.cluster = cluster
        self.folder = folder
        self.end_s = end_s
        folder.mkdir(parents=True)

    @property
    def runs(self) -> Path:
        """Where run folders go."""
        return self.folder / "runs"

    def environ(self, site: Mapping[str, str]) -> dict[str, str]:
        """The shell's variables, with a site file of these entries."""
        file = self.folder / f"site-{abs(hash(tuple(site.items())))}.sh"
        file.write_text("".join(f'{name}="{value}"\n' for name, value in site.items()))
        return {
            **self.cluster.environ,
            "MEGDET_SITE": str(file),
            "MEGDET_VENV": str(Path(sys.executable).parents[1]),
            "COCO_ROOT": str(self.folder / "coco"),
            # 16 and more ranks on two cores: who waits gives the core away.
            "OMPI_MCA_mpi_yield_when_idle": "1",
            "OMP_NUM_THREADS": "1",
        }

    def small(self, *more: str) -> list[str]:
        """Settings of a detector and scenes that train a step in a moment."""
        cache = self.folder.parent / "scenes"
        own = [f"data.scenes.cache={cache}", f"output={self.runs}", "deterministic=true"]
        own += ["learning.epochs=2000", "learning.milestones=[]"]
        return ["--config", "configs/scenes.yaml", *SETTINGS, *own, *more]

    def sbatch(
        self,
        template: str,
        *words: str,
        options: tuple[str, ...] = (),
        site: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        more: Mapping[str, str] | None = None,
    ) -> "Job":
        """``sbatch [options] slurm/TEMPLATE words``; one such job runs at a time.

        ``more``: further variables of the shell.
        """
        log = self.folder / "%x-%j.log"
        environ = self.environ({"SITE_REQUEUE_ON_FAILURE": "0", **(site or {})})
        before = self.cluster.environ
        command = ["sbatch", "--parsable", f"--output={log}", "--licenses=turn"]
        command += [*options, f"slurm/{template}", *words]
        shell = {**before, **environ, **(more or {})}
        number = int(self.cluster.run(*command, cwd=cwd, environ=shell).strip())
        return Job(self, number, template.removesuffix(".sbatch"))

    def wait_for(self, number: int) -> None:
        """Until a job that was submitted in another way is complete."""
        assert Job(self, number, "").wait() == "COMPLETED"


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    lab: Lab
    number: int
    name: str
    run: Path | None = None
    """Its run folder, where that is not named after it."""
    member: int | None = None
    """Its place in the array of that number; None: it is no array."""

    @property
    def slurm_id(self) -> str:
        """How Slurm's commands mean it."""
        return str(self.number) if self.member is None else f"{self.number}_{self.member}"

    @property
    def log(self) -> str:
        """Its output so far."""
        file = self.lab.folder / f"{self.name}-{self.slurm_id}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.run or self.lab.runs / f"{self.name}-{self.slurm_id}"

    @property
    def state(self) -> dict[str, str]:
        """What Slurm says of it."""
        return self.lab.cluster.job(self.slurm_id)

    def wait(self, timeout_s: float = 300) -> str:
        """Its state once it has ended; a requeued job is let go at once."""
        for state in self._looks(timeout_s, "end"):
            if state.get("JobState") in ENDED:
                return state["JobState"]
            self.let_go()
        raise AssertionError("unreachable")

    def wait_for_step(self, step: int) -> None:
        """Until training has taken ``step`` steps."""
        for state in self._looks(200, f"come to step {step}"):
            if self.steps() >= step:
                return
            assert state.get("JobState") not in ENDED, self.log

    def steps(self) -> int:
        """Steps that its metrics tell of."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
            return int(json.loads(lines[-1])["iteration"]) if lines else 0
        except (OSError, ValueError):
            return 0

    def records(self) -> list[dict[str, Any]]:
        """The lines of ``jobs.jsonl``; none before the job's first start."""
        file = self.folder / "jobs.jsonl"
        return [json.loads(x) for x in file.read_text().splitlines()] if file.exists() else []

    def wait_for_record(self, event: str, count: int) -> None:
        """Until ``jobs.jsonl`` has so many lines of a kind."""
        for _ in self._looks(200, f"note {count} × {event}"):
            if sum(record["event"] == event for record in self.records()) >= count:
                return
            self.let_go()

    def let_go(self) -> None:
        """Slurm holds a requeued job back for two minutes: not here.

        But for a moment: it kills one that starts in the second of its requeue ("Job credential
        revoked").
        """
        if self.state.get("Reason") == "BeginTime":
            time.sleep(_HELD_S)
            command = ("scontrol", "update", f"jobid={self.slurm_id}", "StartTime=now")
            self.lab.cluster.run(*command, check=False)

    def _looks(self, timeout_s: float, what: str) -> Iterator[dict[str, str]]:
        """Its state, again and again; time spent waiting for its turn does not count."""
        left_s, before = timeout_s, time.monotonic()
        while left_s > 0 and before < self.lab.end_s:
            state = self.state
            yield state
            time.sleep(_LOOK_S)
            now = time.monotonic()
            if state.get("JobState") != "PENDING":
                left_s -= now - before
            before = now
        raise AssertionError(
            f"job {self.slurm_id} did not {what} in {timeout_s} s, or all had to end\n"
            f"{self.state}\n{self.log}"
        )


def project_copy(to: Path) -> Path:
    """The parts of the project that a job needs, in another folder."""
    for name in ("megdet_hvd", "slurm", "configs"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def hosts_file_has(name: str) -> bool:
    """Whether the machine's own ``/etc/hosts`` knows a name."""
    return any(name in line.split() for line in Path("/etc/hosts").read_text().splitlines())


def is_alive(pid: int) -> bool:
    """Whether a process is there."""
    return os.path.exists(f"/proc/{pid}")
