"""Published runs that the model is held against: data/mlperf.json, each row with its address."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
LOGGED_STEPS_FROM = "v1.0"
"""Earlier rounds logged epochs only, not windows of iterations."""


@dataclass(frozen=True)
class PublishedRun:
    """One system of one round."""

    version: str
    """Round of MLPerf Training."""
    submitter: str
    system: str
    gpu: str
    ranks: int
    """Processes that train."""
    machines: int | None
    """None: the source does not say."""
    nics: tuple[int, float] | None
    """Network adapters of a machine, and Gb/s of each; None: the source does not say."""
    batch: int
    step_s: float
    """Seconds of an iteration; before v1.0 worked out as epoch_s · batch / images."""
    epochs: str
    """To the target, fewest-most."""
    minutes: float
    """Median of the runs that reached the target."""
    address: str

    @property
    def images(self) -> int:
        """Images of one process in a step."""
        return self.batch // self.ranks

    @property
    def stack(self) -> tuple[str, str, str]:
        """Round, submitter and GPU: the same code on the same cards."""
        return self.version, self.submitter.lower(), self.gpu


@cache
def mlperf_runs() -> tuple[PublishedRun, ...]:
    """All rows, in the order of the file."""
    data = json.loads((DATA / "mlperf.json").read_text(encoding="utf-8"))
    return tuple(
        PublishedRun(
            version=row["version"],
            submitter=row["submitter"],
            system=row["system"],
            gpu=row["gpu"],
            ranks=row["training_ranks"],
            machines=row["machines"],
            nics=tuple(row["nics"]) if row["nics"] else None,
            batch=row["batch"],
            step_s=row["step_s"] or row["epoch_s"] * row["batch"] / data["images_per_epoch"],
            epochs=row["epochs"],
            minutes=row["minutes"],
            address=row["address"],
        )
        for row in data["runs"]
    )
