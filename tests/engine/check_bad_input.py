"""Called by several ranks: one bad run after another in the same job; each must end everywhere.

Each rank prints the exit code of each case; rank 0's messages come between.
"""

import contextlib
import errno
import io
import json
import math
import sys
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

from megdet_hvd.model.detector import Detector
from megdet_hvd.train import main as train
from tests.engine.small import small_and_quiet, small_settings
from tests.failing_storage import failing

TRUE_LOSSES = Detector._losses


def coco_set(folder: Path, pictures: int = 12) -> list[str]:
    """A COCO set of noise; returns the settings that name it."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(pictures):
        name = f"p{i}.png"
        Image.effect_noise((64, 48), 80).convert("RGB").save(folder / name)
        images.append({"id": i + 1, "file_name": name, "width": 64, "height": 48})
        box = [5, 5, 20 + i, 20]
        annotations.append(
            {
                "id": i + 1,
                "image_id": i + 1,
                "category_id": 7,
                "bbox": box,
                "area": 400,
                "iscrowd": 0,
            }
        )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "noise"}],
    }
    (folder / "train.json").write_text(json.dumps(content))
    source = f"[{{annotations: '{folder}/train.json', images: '{folder}'}}]"
    return ["data.kind=coco", f"data.train={source}", "data.val=[]", "data.unreadable_images=stop"]


def case(name: str, argv: list[str]) -> None:
    """Run training; say its exit code and what rank 0 said on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = train(argv)
    message = said.getvalue().strip().replace("\n", " / ")
    sys.stdout.write(f"CASE {name} exit {code} said {message!r}\n")
    sys.stdout.flush()


def poisoned_losses(self: torch.nn.Module, batch: object) -> object:
    losses = TRUE_LOSSES(self, batch)  # type: ignore[arg-type]
    return {**losses, "class": losses["class"] * float("nan")} if rank_is_last() else losses


def rank_is_last() -> bool:
    import horovod.torch as hvd

    return bool(hvd.rank() == hvd.size() - 1)


def cases(path: str) -> None:
    """All files are below ``path``."""
    with small_and_quiet():
        _cases(Path(path))


def _cases(folder: Path) -> None:
    small = small_settings(folder, "learning.max_iterations=2")
    case("typo", [*small, "learning.wieght_decay=0.1"])
    case("batch", [*small, "global_batch=13"])
    case("nofile", [*small, "data.kind=coco", "data.train=[{annotations: /no.json, images: /}]"])
    case("config", ["--config", str(folder / "absent.yaml")])
    own = coco_set(folder / "set")
    parts = "tests.extending.parts"
    for setting in ("model.detector", "learning.optimizer", "data.kind=own data.dataset"):
        *more, last = setting.split(" ")
        case(f"no module {last}", [*small, *more, f"{last}=no_such_module:build"])
    for number, word in enumerate(
        (
            f"model.detector={parts}:nothing",
            f"learning.optimizer={parts}:nothing",
            f"log.loggers=[{parts}:nothing]",
        )
    ):
        case(f"nothing {number}", [*small, *own, "name=taken", word])
    case("good", [*small, *own, "name=taken"])
    case("taken", [*small, *own, "name=taken"])
    case("unwritable", [*small, *own, "output=/proc/nowhere", "name=x"])
    case("missing", ["--resume", str(folder / "norun")])
    checkpoint = folder / "runs" / "taken" / "checkpoints" / "iteration_00000002.pt"
    if rank_is_first():
        damaged = bytearray(checkpoint.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        checkpoint.with_name("iteration_00000003.pt").write_bytes(bytes(damaged))
    case("damaged", ["--resume", str(folder / "runs" / "taken")])  # it goes back to the one before
    if rank_is_first():
        there = sorted(p.name for p in checkpoint.parent.glob("iteration_*"))
        assert there[1:] == ["iteration_00000002.pt", "iteration_00000003.pt.damaged"], there
        for file in checkpoint.parent.glob("iteration_*.pt"):
            file.write_bytes(bytes(damaged))
    case("none sound", ["--resume", str(folder / "runs" / "taken")])
    with mock.patch("megdet_hvd.model.detector.Detector._losses", poisoned_losses):
        case("nonfinite", [*small, *own, "name=nan"])
    stale = failing("train.json", errno.ESTALE, math.inf)
    with contextlib.nullcontext() if rank_is_first() else stale:
        case("annotations", [*small, *own, "name=annotations"])
    if rank_is_first():
        stored = folder / "set" / "p3.png"
        stored.unlink()
        stored.symlink_to("/proc/self/mem")  # which answers EIO
    for workers in (0, 1):
        words = [f"name=eio{workers}", f"data.workers={workers}", "data.unreadable_images=skip"]
        case(f"picture{workers}", [*small, *own, *words])
    if rank_is_first():
        (folder / "set" / "p3.png").unlink()
        (folder / "set" / "p3.png").write_bytes(b"no picture at all")
    case("unreadable", [*small, *own, "name=unreadable"])
    case("skipped", [*small, *own, "name=skipped", "data.unreadable_images=skip"])


def rank_is_first() -> bool:
    import os

    names = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)
