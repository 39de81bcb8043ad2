"""Plant each fault into a copy of the tree, and see whether the tests fail.

    python -m tests.planted                 each fault against the tests that it names
    python -m tests.planted --only 3 12     some of them, by number
    python -m tests.planted --all           against everything that ``make test`` runs

Ends with 1 where a fault was not caught. ``--from`` takes the tests and the package of another
tree, of an earlier state say.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.planted.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("megdet_hvd", "tests", "install", "slurm", "configs", "docs")
FAILED = 1
"""pytest's code where tests failed; anything else is no proof."""


def plant(fault: Fault, source: Path, tree: Path) -> None:
    """A copy of ``source`` with the fault in it.

    Raises:
        ValueError: the old line is not there, or stands more than once.
    """
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        shutil.copytree(source / name, tree / name, ignore=skipped)
    for file in source.iterdir():
        if file.is_file() and file.suffix in (".toml", ".cfg", ".cff", ".md", ""):
            shutil.copyfile(file, tree / file.name)
    file = tree / "megdet_hvd" / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.file}: {fault.old!r} stands {text.count(fault.old)} times in it")
    file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def caught(fault: Fault, source: Path, everything: bool) -> tuple[bool, str]:
    """Whether tests fail, and the first that did or pytest's last line."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        tree = Path(folder)
        plant(fault, source, tree)
        selection = ["tests"] if everything else [f"tests/{test}" for test in fault.tests.split()]
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *("-m", "not tail", "--ignore=tests/slurm", "--ignore=tests/faults/campaign"),
            *("--ignore=tests/planted", "-W", "ignore", *selection),
        ]
        done = subprocess.run(
            command,
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    lines = done.stdout.splitlines()
    first = next((line.split(" - ")[0] for line in lines if line.startswith("FAILED")), None)
    return done.returncode == FAILED, first or (lines[-1] if lines else done.stderr[-200:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="numbers, from 1")
    parser.add_argument("--all", action="store_true", help="run all of make test for each")
    parser.add_argument("--from", dest="source", type=Path, default=ROOT, metavar="TREE")
    wanted = parser.parse_args()
    missed = 0
    for number, fault in enumerate(FAULTS, 1):
        if wanted.only and number not in wanted.only:
            continue
        began = time.monotonic()
        found, told = caught(fault, wanted.source.resolve(), wanted.all)
        missed += not found
        print(
            f"{number:2} {fault.part:10} {'caught' if found else 'MISSED'} "
            f"{time.monotonic() - began:5.0f} s  {fault.breaks}\n   {told}",
            flush=True,
        )
    print(f"{missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
