"""``python -m megdet_hvd.bench NAME``: run one measurement."""

import sys
from collections.abc import Sequence
from importlib import import_module

from megdet_hvd.command import leave, name_of
from megdet_hvd.errors import RunError, StorageError, UserError, exit_code_of
from megdet_hvd.version import version_line

MEASUREMENTS = {
    "bn": "what Cross-GPU BN costs beside plain BN, by layer, by step, beside a busy machine",
    "memory": "peak memory and time of a step, with and without recomputation",
    "profile": "what a step takes on this GPU, for python -m megdet_hvd.plan --profile",
    "fit": "the largest batch that fits, with and without recomputation",
    "scaling": "what more processes gain, and where a step's time goes",
    "startup": "from the launch to the first step's forward, beside a bare script",
    "start_ranks": "what the start of up to 128 ranks costs each of them, without torch",
    "growth": "what grows with a run's length, its ranks and its pictures",
    "index": "opening an annotation file as large as COCO's, beside pycocotools",
    "loader": "pictures a second on one core, beside torchvision's own loading",
    "step": "a training step, beside torchvision's model and loop",
    "eval": "COCO's numbers from detections in memory, beside pycocotools",
}
"""Each is a module of this package with a ``main(arguments) -> exit code`` of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments after NAME to that measurement; 2: there is none of that name."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in MEASUREMENTS:
        try:
            code: int = import_module(f"megdet_hvd.bench.{words[0]}").main(words[1:])
        except (UserError, RunError, StorageError) as error:
            print(f"error: {error}", file=sys.stderr)
            return exit_code_of(error)
        return code
    if words and words[0] == "--version":
        print(version_line())
        return 0
    asked = bool(words) and words[0] in ("-h", "--help")
    lines = [f"usage: {name_of('megdet_hvd.bench')} NAME [options]; NAME --help lists them"]
    lines += [f"  {name:11} {summary}" for name, summary in MEASUREMENTS.items()]
    if words and not asked:
        lines.insert(0, f"error: there is no measurement {words[0]!r}")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    leave(main)
