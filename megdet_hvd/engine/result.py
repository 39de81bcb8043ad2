"""What a training inside another program gives back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.naming import BEST, latest_checkpoint
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.engine.run_folder.metrics import lines_so_far
from megdet_hvd.serialize import serializable


@serializable
@dataclass(frozen=True)
class TrainResult:
    """A finished training; the same on every member."""

    run_folder: Path
    """Everything of the run: log, metrics, pictures, checkpoints."""
    iteration: int
    """Optimizer steps done."""
    epoch: float
    """Passes over the training pictures."""
    ap: float | None
    """mmAP on the validation pictures, of the newest evaluation; None: there was none."""
    ap50: float | None
    """AP at IoU 0.5, of the same."""
    best_ap: float | None
    """The highest mmAP of the run."""
    checkpoint: Path | None
    """The newest checkpoint."""
    best_checkpoint: Path | None
    """That with the highest mmAP."""
    evaluations: tuple[dict[str, Any], ...]
    """The evaluations, oldest first, as they stand in ``metrics.jsonl``."""


def result_of(folder: RunFolder, iteration: int, epoch: float) -> TrainResult:
    """Read from the run folder. Rank 0 only."""
    evaluations = lines_so_far(folder.metrics).eval
    last = evaluations[-1] if evaluations else {}
    known = [line["AP"] for line in evaluations if line.get("AP") is not None]
    best = folder.checkpoints / BEST
    return TrainResult(
        run_folder=folder.path,
        iteration=iteration,
        epoch=epoch,
        ap=last.get("AP"),
        ap50=last.get("AP50"),
        best_ap=max(known, default=None),
        checkpoint=latest_checkpoint(folder.checkpoints),
        best_checkpoint=best if best.exists() else None,
        evaluations=tuple(evaluations),
    )
