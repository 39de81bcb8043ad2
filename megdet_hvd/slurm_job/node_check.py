"""Whether each node of a job is well, tried on all of them at once, and which is proven bad. Pure.

A node is proven bad only by comparison: what fails on it works on another, in the same second. What
fails everywhere is not the nodes' fault.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

_MARK = "megdet-node"
_SCRIPT = r"""
tell() { echo "MARK ${SLURMD_NODENAME:-$(uname -n)} $*"; exit 0; }
timeout 20 test -d "$1" || tell "bad the run folder is not there: $1"
timeout 40 "$2" -c 'import sys' > /dev/null 2>&1 || tell "bad $2 does not run"
if command -v nvidia-smi > /dev/null; then
    tell "gpus $(timeout 30 nvidia-smi -L 2> /dev/null | grep -c '^GPU ')"
fi
tell "gpus 0"
""".replace("MARK", _MARK)


def words(run_folder: Path, python: str) -> list[str]:
    """What every node runs, at most 50 s long where its disks answer."""
    return ["sh", "-c", _SCRIPT, "sh", str(run_folder), python]


def answers(text: str) -> dict[str, str]:
    """What each node said of itself, by Slurm's name for it."""
    found = {}
    for line in text.splitlines():
        mark, _, rest = line.partition(" ")
        node, _, said = rest.partition(" ")
        if mark == _MARK and node and said:
            found[node] = said.strip()
    return found


def bad_nodes(said: Mapping[str, str], hosts: Sequence[str]) -> dict[str, str]:
    """Nodes that fail where another does not, and how.

    Args:
        said: by node, of :func:`answers`; a node without an answer counts as neither.
        hosts: the job's nodes; others are passed over.
    """
    known = {node: said[node] for node in hosts if node in said}
    found = {n: text.removeprefix("bad ") for n, text in known.items() if text.startswith("bad ")}
    gpus = {n: int(t[5:]) for n, t in known.items() if t.startswith("gpus ") and t[5:].isdigit()}
    most = max(gpus.values(), default=0)
    few = {n: f"it shows {c} of {most} GPUs" for n, c in gpus.items() if c < most}
    return {**found, **few} if gpus and len(found) + len(few) < len(known) else {}
