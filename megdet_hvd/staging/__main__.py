"""``python -m megdet_hvd.staging --to FOLDER [--data SOURCE] [--environment ARCHIVE]``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from megdet_hvd.command import leave, name_of
from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.staging.stage import Staged, stage_data, stage_environment
from megdet_hvd.version import add_version_option

KINDS = ("data", "environment")


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Copy, print one line and one of JSON; 0, 2 for bad input or no room, 3 for other faults.

    The JSON has ``node``; ``data`` and ``environment``, each null or the path to use; and
    ``copied``, the bytes that each of them took (null: was there already).
    """
    parser = argparse.ArgumentParser(
        prog=name_of("megdet_hvd.staging"),
        description="Copies data and environment to this node's own disk, once. Run it once a "
        "node. The last line printed is JSON with the resulting paths.",
    )
    add_version_option(parser)
    parser.add_argument("--to", type=Path, required=True, help="folder on the node's own disk")
    parser.add_argument("--data", type=Path, help="a folder, or a .tar or .tar.gz of one")
    parser.add_argument("--environment", type=Path, help="the archive that make pack made")
    parser.add_argument(
        "--remove-older",
        action="store_true",
        help="remove older copies; not while other jobs on the node may be using them",
    )
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    node = os.uname().nodename

    def say(text: str) -> None:
        print(f"{node}: {text}", flush=True)

    made: dict[str, Staged] = {}
    try:
        for kind, source, stage in (
            ("data", given.data, stage_data),
            ("environment", given.environment, stage_environment),
        ):
            if source is not None:
                made[kind] = stage(given.to, source, say, remove_older=given.remove_older)
    except UserError as error:
        print(f"{node}: {error}", file=sys.stderr, flush=True)
        return 2
    except (RunError, StorageError, OSError) as error:
        print(f"{node}: staging failed: {error}", file=sys.stderr, flush=True)
        return 3
    say("; ".join(line(kind, staged) for kind, staged in made.items()) or "nothing to copy")
    answer = {
        "node": node,
        **{kind: str(made[kind].path) if kind in made else None for kind in KINDS},
        "copied": {kind: staged.copied_bytes for kind, staged in made.items()},
    }
    print(json.dumps(answer))
    return 0


def line(kind: str, staged: Staged) -> str:
    """What was done, in words."""
    if staged.copied_bytes is None:
        text = f"{kind} is in {staged.path} already"
    else:
        text = (
            f"{kind} copied to {staged.path}, {staged.copied_bytes / 1e9:.2f} GB in "
            f"{staged.seconds:.0f} s"
        )
    remaining = [str(path) for path in staged.older if path.exists()]
    return text + (f" (older copies: {', '.join(remaining)})" if remaining else "")


if __name__ == "__main__":
    leave(main)
