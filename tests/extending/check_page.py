"""Called by several ranks: the examples of docs/extending.md, trained, evaluated and resumed."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.config.load import load_config, override
from megdet_hvd.config.schema import Config
from megdet_hvd.data import collate
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.data.transforms import UnreadablePicture
from megdet_hvd.engine.result import TrainResult
from megdet_hvd.train import train
from tests.engine.small import small_and_quiet, small_config, small_settings

STEPS, STOPPED_AT = 5, 3  # 30 pictures, batch 12: step 3 straddles two epochs
MORE = ("deterministic=true", "memory.checkpoint=blocks")


def write_tables(folder: Path) -> None:
    """The rendered scenes as the page's tables."""
    found = ensure_scenes(small_config(folder).data.scenes)
    for name, source in (("train", found.train), ("val", found.val)):
        content = json.loads(source.annotations.read_text())
        names = {one["id"]: one["name"] for one in content["categories"]}
        files = {one["id"]: one["file_name"] for one in content["images"]}
        (folder / "boxes").mkdir(exist_ok=True)
        (folder / "boxes" / "classes.txt").write_text("\n".join(names.values()))
        lines = []
        for one in content["annotations"]:
            x, y, w, h = one["bbox"]
            shown = f"{name}/{files[one['image_id']]},{x},{y},{x + w},{y + h}"
            lines.append(f"{shown},{names[one['category_id']]}\n")
        (folder / "boxes" / f"{name}.csv").write_text("".join(lines))
        (folder / "pictures").mkdir(exist_ok=True)
        (folder / "pictures" / name).symlink_to(source.images)


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """As a program that was started there; its modules are forgotten afterwards."""
    before, path, known = Path.cwd(), list(sys.path), set(sys.modules)
    os.chdir(folder)
    sys.path[:] = [entry for entry in path if entry]
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        for name in set(sys.modules) - known:
            if name.startswith("my_"):
                del sys.modules[name]


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All that a checkpoint holds, by where it stands."""
    if isinstance(value, dict | list | tuple):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(one, f"{name}.{key}")
    else:
        yield name, value


def learned(folder: Path) -> dict[str, Any]:
    """Weights, and the optimizer's state."""
    content = load_checkpoint(folder)
    assert content["iteration"] == STEPS
    kept = {key: content[key] for key in ("model", "optimizer", "running_statistics", "random")}
    return dict(flat(kept))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return bool(one == other)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def whole_and_in_parts(config: Config, runs: Path, **given: Any) -> tuple[TrainResult, Path]:
    """A run in one go, and one that was stopped and resumed: the same to the bit.

    Returns the first's result, and the second's folder.
    """

    def trained(name: str, steps: int, resume: bool = False) -> TrainResult:
        learning = config.learning.model_copy(update={"max_iterations": steps})
        shorter = config.model_copy(update={"learning": learning})
        return train(shorter, run_folder=runs / name, resume=resume, **given)

    whole = trained("whole", STEPS)
    trained("parts", STOPPED_AT)
    trained("parts", STEPS, resume=True)
    first, second = learned(runs / "whole"), learned(runs / "parts")
    assert first.keys() == second.keys() and len(first) > 50
    different = [name for name in first if not equal(first[name], second[name])]
    assert not different, different[:3]
    return whole, runs / "parts"


def named_in_a_file(path: str) -> None:
    """All parts, on CGBN; a process without pictures; and the same in another way."""
    folder = Path(path)
    with in_folder(folder), small_and_quiet():
        config = load_config(folder / "mine.yaml", [*small_settings(folder, *MORE)])
        result, parts = whole_and_in_parts(config, folder / "runs")
        log = (result.run_folder / "log.txt").read_text()
        assert "CGBN: 21 layers share statistics over ranks 0-1" in log, log
        assert "recomputation blocks (memory.checkpoint=blocks); 8 segments" in log, log
        assert "training: 27 pictures, 124 boxes of 6 classes" in log, log
        names = ("classification", "bbox_regression", "bbox_ctrness")
        for line in lines(result.run_folder, "train"):
            assert abs(line["loss"] - sum(line[name] for name in names)) < 1e-9
            assert "rpn_foreground" not in line
        # The optimizer is the one of the page, with all that it was made with.
        content = load_checkpoint(result.run_folder)
        (group,) = content["optimizer"]["param_groups"]
        assert group["trust"] == 0.02 and group["lr"] != config.learning.base_rate
        assert all(set(one) == {"momentum"} for one in content["optimizer"]["state"].values())
        for run in (result.run_folder, parts):
            losses = [(line["iteration"], line["loss"]) for line in lines(run, "train")]
            rows = [row.split(",") for row in (run / "losses.csv").read_text().split()]
            assert [(int(number), float(loss)) for number, loss in rows] == losses
            assert [number for number, _ in losses] == [1, 2, 3, 4, 5]
            assert all(line["count_error"] >= 0 for line in lines(run, "eval"))
        assert result.evaluations[-1]["count_error"] >= 0
        without_pictures(config, folder)
        adamw_given(small_config(folder, MORE), folder)


def without_pictures(config: Config, folder: Path) -> None:
    """Rank 1 can read none of its pictures, and keeps step."""
    words = ["global_batch=2", "learning.max_iterations=2", "data.unreadable_images=skip"]
    broken = mock.patch.object(collate, "pixels_at", side_effect=UnreadablePicture("cut off"))
    with broken if os.environ["HOROVOD_RANK"] == "1" else nullcontext():
        result = train(override(config, words), run_folder=folder / "runs" / "without")
    assert [line["skipped"] for line in lines(result.run_folder, "train")] == [1, 2]


def adamw_given(config: Config, folder: Path) -> None:
    """Given as an argument, with a setting that is another one after a resume."""
    from my_optimizer import adamw  # type: ignore[import-not-found]
    from my_program import run  # type: ignore[import-not-found]

    decayed = []

    def other(groups: list[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
        decayed.append(groups[0]["weight_decay"])
        made: torch.optim.Optimizer = adamw(groups, config)
        return made

    other.__module__, other.__qualname__ = "my_optimizer", "adamw"
    learning = config.learning.model_copy(update={"max_iterations": 2})
    short = config.model_copy(update={"learning": learning})
    run(short, run_folder=folder / "runs" / "adamw")
    learning = learning.model_copy(update={"max_iterations": 3, "weight_decay": 0.5})
    changed = config.model_copy(update={"learning": learning})
    before = len((folder / "runs" / "adamw" / "losses.csv").read_text().splitlines())
    result = train(
        changed, run_folder=folder / "runs" / "adamw", resume=True, optimizer=other, loggers=[]
    )
    content = load_checkpoint(result.run_folder)
    assert content["config"]["learning"]["optimizer"] == "my_optimizer:adamw"
    assert content["optimizer"]["param_groups"][0]["weight_decay"] == 0.5 and decayed == [0.5]
    assert {float(one["step"]) for one in content["optimizer"]["state"].values()} == {3.0}
    assert before == len((result.run_folder / "losses.csv").read_text().splitlines()) == 2
    log = (result.run_folder / "log.txt").read_text()
    assert "your own: learning.optimizer=my_optimizer:adamw, log.loggers=my_logger:Csv" in log
