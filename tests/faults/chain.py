"""One chain: a run that is started until its faults are over, and compared with an unhurt one."""

import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from megdet_hvd.checkpoint.file import is_sound, load_checkpoint
from megdet_hvd.checkpoint.naming import iteration_of, list_checkpoints
from tests.engine.small import SETTINGS
from tests.evaluation.sets import write_set
from tests.faults.attempt import Attempt, run_attempt
from tests.faults.draw import Chain, Fault
from tests.faults.kinds import BY_NAME, FINISHED, Kind
from tests.ranks import RanksHung

STEPS = 44
KEEP = 3
DISK = "48m"  # a checkpoint is 2 MB
WATCHDOG_S = 6.0

IN_LINE = ("data.scenes", "global_batch=", "data.workers", "evaluation.", "learning.warmup")


@dataclass
class Record:
    """One fault, and what followed."""

    kind: str
    chain: int
    attempt: int
    moment: str
    effective: bool
    problems: list[str] = field(default_factory=list)
    """What was not as it must be; of an attempt's, those that can be laid at this fault's door."""
    took_s: float = 0.0


@dataclass
class ChainReport:
    """What became of a chain."""

    chain: Chain
    records: list[Record]
    problems: list[str]
    """Of the chain as a whole: lost checkpoints, a result unlike the unhurt run's."""


class Scene:
    """The data of a campaign, and runs without faults to compare with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sets = {
            part: write_set(
                folder / part, range(1, size + 1), seed=size, sizes=((64, 48), (48, 64))
            )
            for part, size in (("train", 28), ("val", 6))
        }
        self._unhurt: dict[tuple[str, str], Path] = {}

    def words(self, run: Path, chain: Chain) -> list[str]:
        """The command line of a run of ``chain``."""
        kept = [setting for setting in SETTINGS if not setting.startswith(IN_LINE)]
        source = {
            part: f"[{{annotations: '{one.annotations}', images: '{one.images}'}}]"
            for part, one in self.sets.items()
        }
        return [
            "--run",
            str(run),
            *kept,
            "data.kind=coco",
            f"data.train={source['train']}",
            f"data.val={source['val']}",
            f"output={run.parent}",
            "global_batch=4",
            "learning.warmup_iterations=2",
            f"learning.max_iterations={STEPS}",
            "learning.epochs=100",
            "learning.milestones=[]",
            "evaluation.untrained=false",
            "evaluation.every_epochs=0.5",
            "checkpoint.every_epochs=0.5",
            "checkpoint.every_iterations=3",
            f"checkpoint.keep={KEEP}",
            "deterministic=true",
            f"watchdog.seconds={WATCHDOG_S}",
        ]

    def unhurt(self, chain: Chain) -> Path:
        """The run folder of the same training without faults."""
        key = chain.program, chain.launcher
        if key not in self._unhurt:
            run = self.folder / f"unhurt-{chain.program}-{chain.launcher}" / "run"
            run.parent.mkdir()
            words = [*self.words(run, chain), "data.workers=0"]
            done = run_attempt(chain, words, (), run.parent / "attempt", run.parent, 240)
            if done.code != FINISHED or done.left:
                raise AssertionError(f"without faults:\n{done.output}\n{done.left}")
            self._unhurt[key] = run
        return self._unhurt[key]


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own that can be filled, where this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def run_chain(chain: Chain, scene: Scene, limit_s: float) -> ChainReport:
    """Start the run until it has suffered all, and to its end."""
    unhurt = scene.unhurt(chain)
    folder = scene.folder / f"chain-{chain.number}"
    folder.mkdir()
    records: list[Record] = []
    problems: list[str] = []
    with small_disk(folder / "disk") as can_fill:
        run = folder / "disk" / "run"
        kept: set[int] = set()
        ended = False
        for number, faults in enumerate([*chain.attempts, ()]):
            if ended:  # over before its faults were: they missed
                records += [Record(f.kind, chain.number, number, f.moment, False) for f in faults]
                continue
            if not can_fill:
                faults = tuple(f for f in faults if not f.kind.startswith("full disk"))
            damaged = _damage(run, faults)
            settings = [s for fault in faults for s in BY_NAME[fault.kind].settings]
            words = [*scene.words(run, chain), *(settings or ["data.workers=0"])]
            try:
                attempt = run_attempt(
                    chain, words, faults, folder / f"attempt-{number}", folder / "disk", limit_s
                )
            except RanksHung as hung:
                problems.append(f"attempt {number} ({_names(faults)}): {hung}")
                records += [
                    Record(f.kind, chain.number, number, f.moment, True, ["hung"], limit_s)
                    for f in faults
                ]
                break
            told = judge(faults, attempt, damaged)
            for record in told:
                record.chain, record.attempt = chain.number, number
            records += told
            now = _sound(run)
            lost = _lost(kept, now, damaged)
            if lost is not None:
                problems.append(f"attempt {number} ({_names(faults)}): {lost}")
            kept = now
            if any(record.problems for record in told) or lost is not None:
                (folder / f"attempt-{number}" / "FAILED").write_text(
                    json.dumps([vars(record) for record in told], indent=1)
                )
            ended = attempt.code == FINISHED
        else:
            problems += compare(run, unhurt) if ended else ["the run did not come to its end"]
    return ChainReport(chain, records, problems)


def _names(faults: tuple[Fault, ...]) -> str:
    return ", ".join(fault.kind for fault in faults) or "no fault"


def _damage(run: Path, faults: tuple[Fault, ...]) -> set[int]:
    """Tear the newest checkpoint, or flip a bit of it, if a fault says so; its iteration."""
    due = next((fault for fault in faults if fault.moment == "before"), None)
    files = list_checkpoints(run / "checkpoints")
    if due is None or len(files) < 2:
        return set()
    draw, newest = random.Random(due.draw), files[-1]
    content = newest.read_bytes()
    best = newest.with_name("best.pt")
    if best.exists() and best.samefile(newest):
        # One file under two names: a disk block of one would be damaged, not of both.
        best.unlink()
        best.write_bytes(content)
    while is_sound(newest):  # a bit between two parts is nobody's
        damaged = bytearray(content)
        if draw.random() < 0.5:
            del damaged[draw.randrange(len(content)) :]
        else:
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        newest.write_bytes(damaged)
    number = iteration_of(newest)
    return set() if number is None else {number}


def _sound(run: Path) -> set[int]:
    """Iterations of the checkpoints that are whole."""
    return {
        number
        for path in list_checkpoints(run / "checkpoints")
        if (number := iteration_of(path)) is not None and is_sound(path)
    }


def _lost(before: set[int], now: set[int], damaged: set[int]) -> str | None:
    """What is gone of the sound checkpoints from before an attempt; None: nothing."""
    before = before - damaged
    if before and (not now or max(now) < max(before)):
        return f"checkpoint {max(before)} is lost, of {sorted(before)}: there are {sorted(now)}"
    if len(now) < min(KEEP, len(before)):
        return f"of checkpoints {sorted(before)} only {sorted(now)} are left"
    return None


def judge(faults: tuple[Fault, ...], attempt: Attempt, damaged: set[int]) -> list[Record]:
    """What each fault of an attempt did, and what is wrong with it."""
    happened = {event["kind"] for event in attempt.events} | (
        {"damaged checkpoint"} if damaged else set()
    )
    records = [
        Record(f.kind, 0, 0, f.moment, f.kind in happened, took_s=attempt.took_s) for f in faults
    ]
    in_effect = [r for r in records if r.effective]
    ending = next((r for r in in_effect if BY_NAME[r.kind].ends), None)
    answerable = ending or (in_effect[-1] if in_effect else None)
    common: list[str] = []
    allowed: frozenset[int | None] = frozenset({FINISHED})
    kind: Kind | None = None if ending is None else BY_NAME[ending.kind]
    if kind is not None:
        allowed = kind.codes
        if ending is not None and ending.moment == "start":
            allowed |= {None, FINISHED}  # before the program listens, a signal ends it at once
        if ending is not None and ending.kind == "evaluator killed":
            allowed |= {None}
    if attempt.code not in allowed:
        told = f"ended with {attempt.code} (launcher {attempt.launcher_code})"
        common.append(f"{told}, not {sorted(map(str, allowed))}")
    if attempt.left:
        common.append(f"left behind: {attempt.left}")
    tracebacks = sum(
        line.endswith("Traceback (most recent call last):")
        and (line.startswith("[") or not attempt.tagged)
        for line in attempt.output.splitlines()
    )
    if tracebacks > sum(BY_NAME[record.kind].tracebacks for record in in_effect):
        common.append(f"{tracebacks} tracebacks")
    for fault, record in zip(faults, records, strict=True):
        own = BY_NAME[fault.kind]
        quiet = fault.moment == "start" and attempt.code not in (5,)
        quiet = quiet or (fault.kind == "kill" and attempt.ranks == 1)  # nobody is left to say it
        if record.effective and own.says and not quiet and not own.told(attempt.output, fault.rank):
            record.problems.append(f"nothing like {own.says!r} was said")
    if common and answerable is not None:
        answerable.problems += common
    elif common:
        records.append(Record("none", 0, 0, "", True, common, attempt.took_s))
    return records


def compare(run: Path, unhurt: Path) -> list[str]:
    """Where the end of a run differs from that of the unhurt one; each iteration came once."""
    name = f"iteration_{STEPS:08d}.pt"
    ours, theirs = (load_checkpoint(one / "checkpoints" / name) for one in (run, unhurt))
    problems = []
    for key in ("model",):
        unlike = [n for n, v in theirs[key].items() if not torch.equal(ours[key][n], v)]
        if unlike:
            problems.append(f"{len(unlike)} tensors of {key} differ, {unlike[0]} for one")
    for n, state in theirs["optimizer"]["state"].items():
        if not torch.equal(
            ours["optimizer"]["state"][n]["momentum_buffer"], state["momentum_buffer"]
        ):
            problems.append(f"momentum of parameter {n} differs")
            break
    steps = [one for one in _metrics(run) if one["kind"] == "train"]
    numbers = [one["iteration"] for one in steps]
    if len(set(numbers)) != len(numbers) or numbers != sorted(numbers):
        problems.append(f"iterations in metrics.jsonl: {numbers}")
    losses = {one["iteration"]: one["loss"] for one in _metrics(unhurt) if one["kind"] == "train"}
    wrong = [one["iteration"] for one in steps if losses.get(one["iteration"]) != one["loss"]]
    if wrong:
        problems.append(f"other losses at iterations {wrong}")
    problems += _compare_best(run, unhurt)
    return problems


def _compare_best(run: Path, unhurt: Path) -> list[str]:
    """``best.pt`` was measured, and nothing that this run measured is better."""
    best = run / "checkpoints" / "best.pt"
    if not best.exists():
        return []
    state = load_checkpoint(best)
    iteration, ap = state["iteration"], state["ap"]
    own, theirs = (
        {one["iteration"]: one["AP"] for one in _metrics(folder) if one["kind"] == "eval"}
        for folder in (run, unhurt)
    )
    problems = []
    # In a pipeline a checkpoint is written before it is measured.
    if iteration not in theirs or ap not in (None, theirs[iteration]):
        problems.append(f"best.pt is of iteration {iteration} with ap {ap}")
    elif theirs[iteration] < max(own.values(), default=-1.0):
        problems.append(f"best.pt is of iteration {iteration}, and {own} were measured")
    unlike = [n for n, found in own.items() if n in theirs and theirs[n] != found]
    if unlike:
        problems.append(f"other mmAP after iterations {unlike}")
    return problems


def _metrics(run: Path) -> list[dict[str, Any]]:
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off by a full disk
            continue
    return found
