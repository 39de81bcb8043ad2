"""The start-up bench's part in every process: ``bench startup`` starts it, nobody else need."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()


def main(argv: Sequence[str] | None = None) -> int:
    """One side: a file ``rank-PID`` says when it was there, and its processor seconds so far."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--marks", type=Path, required=True)
    parser.add_argument("side", choices=("ours", "bare"))
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args(argv)
    return (_ours if options.side == "ours" else _bare)(options)


def _mark(folder: Path) -> None:
    text = f"{time.time()} {time.process_time()}"
    (folder / f"rank-{os.getpid()}").write_text(text, encoding="utf-8")


def _bare(options: argparse.Namespace) -> int:
    import horovod.torch as hvd
    import torch
    import torchvision

    assert torchvision.__version__
    hvd.init()
    total = hvd.allreduce(torch.ones(1), op=hvd.Sum)
    assert int(total) == hvd.size()
    _mark(options.marks)
    hvd.shutdown()
    return 0


def _ours(options: argparse.Namespace) -> int:
    """The training command, one step of it, with an eye on the detector's first forward pass."""
    from typing import Any

    from megdet_hvd import train

    def watch() -> None:
        import torch

        from megdet_hvd.model.detector import Detector

        seen: list[Any] = []

        def there(module: torch.nn.Module, *_: Any) -> None:
            if isinstance(module, Detector) and module.training and not seen:
                seen.append(None)
                _mark(options.marks)

        torch.nn.modules.module.register_module_forward_hook(there)

    original = train.train_in_world

    def watched(*arguments: Any) -> int:
        watch()
        return original(*arguments)

    vars(train)["train_in_world"] = watched
    folder = options.marks / "run"
    return train.main(
        [
            *("--run", str(folder), "learning.max_iterations=1", "evaluation.untrained=false"),
            *("evaluation.every_epochs=0", "evaluation.max_images=1", "log.tensorboard=false"),
            "global_batch=8",
            *options.overrides,
        ]
    )


if __name__ == "__main__":
    sys.argv[0] = str(Path(__file__))
    leave(main)
