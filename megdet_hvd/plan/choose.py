"""The question the other way round: which GPUs and batch meet a deadline, a limit, a budget."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from megdet_hvd.errors import UserError
from megdet_hvd.plan.advice import FROZEN_FAILS, SMALL_BN_IMAGES
from megdet_hvd.plan.prediction import Prediction, predict
from megdet_hvd.plan.question import Question
from megdet_hvd.schedule.large_batch import LARGEST_SHOWN

Wish = Literal["deadline", "gpus", "node_hours"]
IMAGES = (1, 2, 4, 8)
"""A GPU's, that are tried where none are given."""
MOST_MACHINES = 16
_UNITS = {"s": 1 / 3600, "m": 1 / 60, "min": 1 / 60, "h": 1.0, "d": 24.0, "": 1.0}
_VALUE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|min|h|d|)")


@dataclass(frozen=True)
class Limit:
    """What must be kept."""

    wish: Wish
    value: float
    """Hours, GPUs or node-hours."""

    def keeps(self, row: Prediction) -> bool:
        """Whether a row does."""
        had = {"deadline": row.hours, "gpus": float(row.gpus), "node_hours": row.node_hours}
        return had[self.wish] <= self.value


def read_limit(text: str) -> Limit:
    """``deadline=6h``, ``gpus=32`` or ``node_hours=200``.

    Raises:
        UserError: it is none of them.
    """
    wish, _, value = text.partition("=")
    match = _VALUE.fullmatch(value)
    if wish not in ("deadline", "gpus", "node_hours") or match is None or float(match[1]) <= 0:
        raise UserError(f"--fit {text}: give deadline=6h (or 90m), gpus=32 or node_hours=200")
    if wish != "deadline" and match[2]:
        raise UserError(f"--fit {text}: {wish} takes a number without a unit: {wish}={match[1]}")
    hours = float(match[1]) * (_UNITS[match[2]] if wish == "deadline" else 1.0)
    return Limit(cast(Wish, wish), hours)


def candidates(question: Question) -> list[Prediction]:
    """Whole machines up to 16, images a GPU up to 8, that fit the paper's limits and the memory.

    Batch 256 at most, with frozen BN below 128, a batch that divides, and, with CGBN and no bn.size
    of its own, 16 images a statistic at least.
    """
    found = []
    most = _largest_batch(question)
    images = IMAGES if question.images_per_gpu is None else (question.images_per_gpu,)
    for machines in range(1, MOST_MACHINES + 1):
        gpus = machines * question.gpus_per_machine
        for each in images:
            if gpus * each * question.config.learning.accumulation > most:
                continue
            try:
                row = predict(replace(question, images_per_gpu=each), gpus)
            except UserError:
                continue
            if row.fits and not _small(row):
                found.append(row)
    return found


def _largest_batch(question: Question) -> int:
    """That the paper shows to converge, if only with half the rate."""
    frozen = question.config.model.norm == "frozen"
    return FROZEN_FAILS - 1 if frozen else LARGEST_SHOWN


def _small(row: Prediction) -> bool:
    """Whether CGBN would have too few images, though nobody has named a size."""
    left_open = row.config.model.norm == "cgbn" and row.config.bn.size is None
    return left_open and min(row.derived.bn_images) < SMALL_BN_IMAGES


def choose(question: Question, limit: Limit) -> Prediction:
    """The best row that keeps ``limit``.

    deadline: fewest node-hours, then soonest. gpus and node_hours: soonest, then fewest node-hours.

    Raises:
        UserError: none keeps it; says what comes nearest.
    """
    rows = candidates(question)
    if not rows:
        raise UserError(
            f"--fit: no number of machines of {question.gpus_per_machine} GPUs holds this within "
            f"the paper's limits (batch {_largest_batch(question)} at most, {SMALL_BN_IMAGES} "
            "images a BN statistic at least) and the memory: set memory.checkpoint=auto, or "
            "another --images-per-gpu"
        )
    kept = [row for row in rows if limit.keeps(row)]
    if not kept:
        raise UserError(_nearest(rows, limit))
    if limit.wish == "deadline":
        return min(kept, key=lambda row: (row.node_hours, row.hours))
    return min(kept, key=lambda row: (row.hours, row.node_hours))


def _nearest(rows: Sequence[Prediction], limit: Limit) -> str:
    if limit.wish == "deadline":
        best = min(rows, key=lambda row: row.hours)
        said = f"{best.hours:.2f} h on {best.gpus} GPUs is the soonest that is predicted"
    elif limit.wish == "gpus":
        best = min(rows, key=lambda row: row.gpus)
        said = f"{best.gpus} GPUs are the fewest, a whole machine (--gpus-per-node)"
    else:
        best = min(rows, key=lambda row: row.node_hours)
        said = f"{best.node_hours:.1f} node-hours on {best.gpus} GPUs are the fewest"
    return f"--fit {limit.wish}={limit.value:g}: nothing keeps it; {said}"
