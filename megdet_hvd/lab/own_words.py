"""What settings on the lab's command line may change, and what belongs to the experiments.

A row is what its name says: its batch, norm, BN size, rate and schedule are the lab's, and so is
what every row needs to be judged. All else (data, detector, optimizer) may be set for all rows
alike, and so may r, from which the rows' rates follow.
"""

from collections.abc import Sequence
from dataclasses import replace

from megdet_hvd.errors import UserError
from megdet_hvd.lab.scale import LabScale

BASE_RATE = "learning.base_rate"
OF_THE_ROWS = (
    "global_batch",
    "seed",
    "model.norm",
    "bn.size",
    *(
        f"learning.{name}"
        for name in (
            "base_batch",
            "scaling",
            "rate",
            "rate_factor",
            "warmup_iterations",
            "warmup_images",
            "warmup_start_rate",
            "policy",
            "milestones",
            "epochs",
            "max_iterations",
            "accumulation",
        )
    ),
    "evaluation.every_epochs",
    "log.every_iterations",
)
"""Settings that make a row what it is, or that its judgement rests on."""


def settled(scale: LabScale, words: Sequence[str]) -> tuple[LabScale, tuple[str, ...]]:
    """The scale with the r that ``words`` (key.sub=value) give, and the other words.

    Raises:
        UserError: a word sets what belongs to the rows, or r is no positive number.
    """
    others = []
    for word in words:
        key, _, value = word.partition("=")
        key = key.strip()
        if key == BASE_RATE:
            scale = replace(scale, base_rate=_rate(value, word))
            continue
        for taken in OF_THE_ROWS:
            if key == taken or key.startswith(f"{taken}.") or taken.startswith(f"{key}."):
                raise UserError(
                    f"{word}: {taken} belongs to the experiments' rows, which would no longer be "
                    f"what they are called; leave it out ({BASE_RATE}=… changes all rates alike)"
                )
        others.append(word)
    return scale, tuple(others)


def _rate(value: str, word: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UserError(f"{word}: r must be a positive number, such as {BASE_RATE}=0.01")
    return rate
