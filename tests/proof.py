"""Proof of value: the losses of a short training before a change and after it, to the bit.

    python -m tests.proof                          the working tree against the last commit
    python -m tests.proof main                     against another commit
    python -m tests.proof main --np 2 global_batch=4 model.norm=bn
                                                   on two processes, with settings of your own

Rendered scenes, a small detector, deterministic=true. Prints both sides' losses, and ends with 1
where they differ.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.engine.small import small_settings

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("loss", "rpn_class", "rpn_box", "class", "box")

Losses = list[tuple[float, ...]]
"""PARTS of each iteration."""


def losses_of(metrics: str) -> Losses:
    """From the text of ``metrics.jsonl``."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in metrics.splitlines()]
    return [tuple(line[part] for part in PARTS) for line in lines if line["kind"] == "train"]


def compared(before: Losses, after: Losses) -> tuple[list[str], bool]:
    """A line for each iteration, and whether all are equal to the bit."""
    lines = ["iteration  loss before           loss after"]
    equal = bool(before) and len(before) == len(after)
    for number, (old, new) in enumerate(zip_longest(before, after), 1):
        shown = [f"{'none' if side is None else repr(side[0]):20}" for side in (old, new)]
        changed: list[str] = []
        if old is not None and new is not None:
            pairs = zip(PARTS, old, new, strict=True)
            changed = [part for part, was, now in pairs if repr(was) != repr(now)]
        equal = equal and not changed
        differ = f"  differ: {', '.join(changed)}" if changed else ""
        lines.append(f"{number:9}  {'  '.join(shown).rstrip()}{differ}")
    return lines, equal


def train(tree: Path, folder: Path, processes: int, settings: Sequence[str]) -> Losses:
    """Train the package of ``tree``; what it writes goes to ``folder``."""
    words = [sys.executable, "-m", "megdet_hvd.train", *small_settings(folder, *settings)]
    if processes > 1:
        words = ["horovodrun", "-np", str(processes), *words]
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(words, cwd=tree, env=environ, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"the training of {tree} failed:\n{done.stdout}\n{done.stderr}")
    (metrics,) = (folder / "runs").glob("*/metrics.jsonl")
    return losses_of(metrics.read_text(encoding="utf-8"))


def main() -> int:
    """Train both sides and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", nargs="?", default="HEAD", help="commit to compare with")
    parser.add_argument("settings", nargs="*", metavar="key.sub=value")
    parser.add_argument("--np", type=int, default=1, help="processes")
    parser.add_argument("--iterations", type=int, default=6)
    options = parser.parse_intermixed_args()
    settings = [
        "deterministic=true",
        f"learning.max_iterations={options.iterations}",
        *options.settings,
    ]
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory(prefix="megdet-proof-") as scratch:
        base = Path(scratch) / "base"
        subprocess.run(
            [*git, "worktree", "add", "--quiet", "--detach", base, options.base], check=True
        )
        try:
            before = train(base, Path(scratch) / "before", options.np, settings)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", base], check=True)
        after = train(ROOT, Path(scratch) / "after", options.np, settings)
    lines, equal = compared(before, after)
    print("\n".join(lines))
    print("equal to the bit" if equal else "NOT equal")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
