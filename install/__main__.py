"""``python -m install setup|quiet|pack|archives|lock|docs``: the steps of set-up, by name."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from install.archives import fetch_archives
from install.docs import build_docs
from install.environment import set_up
from install.lock import make_locks
from install.pack import pack
from install.problem import SetupProblem
from install.settings import read_places

USAGE = """usage: install/setup [setup | quiet | pack | archives | lock | docs]
  setup      make the environment or bring it up to date (the default)
  quiet      the same, saying nothing where it is ready
  pack       the environment as one archive, for nodes to unpack (MEGDET_PACK)
  archives   fill the folder MEGDET_ARCHIVES for machines without network
  lock       write install/lock anew, after a change of versions.toml
  docs       the pages as a site, docs/_build/html"""


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    word = arguments[0] if arguments else "setup"
    if len(arguments) > 1 or word not in ("setup", "quiet", "pack", "archives", "lock", "docs"):
        print(USAGE, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    try:
        root = Path(__file__).resolve().parent.parent
        places = read_places(os.environ, root, Path.home())
        if word == "archives":
            fetch_archives(places, os.environ)
        elif word == "lock":
            make_locks(places, os.environ)
        elif word == "docs":
            build_docs(places, os.environ)
        elif word == "pack":
            pack(places, os.environ)
        else:
            set_up(places, os.environ, quiet=word == "quiet")
    except SetupProblem as problem:
        print(f"[set-up] {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[set-up] interrupted; run it again and it carries on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
