"""Several Horovod processes on the one GPU, and what each of them found."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.rank import ON_ONE_GPU
from tests.ranks import run_ranks


class Ended(NamedTuple):
    """A job that has ended."""

    code: int
    output: str
    ranks: list[dict[str, Any]]
    """What each wrote; empty: nothing."""


def run_case(
    setting: Setting, case: str, processes: int, *words: object, name: str = "", limit_s: float = 60
) -> Ended:
    """Run it in so many processes; the output is kept as ``NAME.log``.

    Raises:
        RanksHung: it did not end; the text has each process's stack.
    """
    folder = setting.folder / (name or case)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("rank*.json"):
        old.unlink()
    options: list[object] = [case, folder, "--device", setting.device, "--processes", processes]
    options += ["--small"] if setting.small else []
    done = run_ranks(
        ["-m", "tests.gpu.visit.rank"],
        processes,
        *options,
        *words,
        launcher="gloo",
        timeout_s=limit_s,
        env=ON_ONE_GPU if setting.device == "cuda" else {},
    )
    (setting.folder / f"{name or case}.log").write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        print(done.stdout[-6000:], flush=True)
    files = [folder / f"rank{rank}.json" for rank in range(processes)]
    return Ended(done.returncode, done.stdout, [found_in(file) for file in files])


def found_in(file: Path) -> dict[str, Any]:
    """What a rank wrote; empty: nothing."""
    if not file.exists():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def all_equal(ranks: Sequence[dict[str, Any]], key: str) -> bool:
    """Whether each has it, and the same."""
    values = [rank.get(key) for rank in ranks]
    return None not in values and all(value == values[0] for value in values)
