"""``python -m tests.faults``: draw a campaign, run it, print the table. Exit code 1: faults found.

Chains that do not fit into the time are left out, last first, and counted as not run.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.chain import ChainReport, Scene, run_chain
from tests.faults.draw import draw_campaign
from tests.faults.table import table, totals


def main() -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=130, help="faults to draw, at least")
    parser.add_argument("--minutes", type=float, default=30.0, help="start no chain after that")
    parser.add_argument("--limit", type=float, default=120.0, help="an attempt hangs after, s")
    parser.add_argument("--chains", type=int, nargs="*", help="only these, by number")
    parser.add_argument("--keep", action="store_true", help="keep the runs' files")
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="megdet-faults-"))
    began = time.monotonic()
    reports: list[ChainReport] = []
    chains = draw_campaign(options.seed, options.faults)
    left_out = 0
    for chain in chains:
        if options.chains is not None and chain.number not in options.chains:
            continue
        if time.monotonic() - began > 60 * options.minutes:
            left_out += 1
            continue
        report = run_chain(chain, scene_of(folder), options.limit)
        reports.append(report)
        _tell(report, time.monotonic() - began)
    text = table(reports)
    print(text)
    if left_out:
        print(f"{left_out} of {len(chains)} chains were not run: {options.minutes:g} minutes over")
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    effective, wrong, _ = totals(reports)
    broken = sum(bool(report.problems) for report in reports)
    if options.keep or wrong or broken:
        print(f"the runs' files: {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{effective - wrong + len(reports) - broken} passed, {wrong + broken} failed")
    return 1 if wrong or broken or not effective else 0


_scenes: dict[Path, Scene] = {}


def scene_of(folder: Path) -> Scene:
    """The campaign's data and unhurt runs, made once."""
    if folder not in _scenes:
        _scenes[folder] = Scene(folder / "scene")
    return _scenes[folder]


def _tell(report: ChainReport, at_s: float) -> None:
    chain = report.chain
    print(
        f"[{at_s:6.0f} s] chain {chain.number}: {chain.program}, {chain.launcher}, "
        f"{chain.ranks} ranks, {len(chain.attempts) + 1} starts"
    )
    for record in report.records:
        state = "missed" if not record.effective else "WRONG" if record.problems else "well"
        print(
            f"    {record.attempt}: {record.kind} ({record.moment}): {state}, {record.took_s:.0f} s"
        )
        for problem in record.problems:
            print(f"        {problem}")
    for problem in report.problems:
        print(f"    WRONG: {problem}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
