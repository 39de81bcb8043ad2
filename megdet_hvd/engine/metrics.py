"""Numbers of a run: JSON lines, and TensorBoard beside them. Rank 0 only."""

import json
import math
from pathlib import Path
from typing import Any


def _plain(value: Any) -> Any:
    """NaN and infinities as null: JSON has no other word for them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Metrics:
    """Appends to ``metrics.jsonl`` and, where wanted, to TensorBoard event files."""

    def __init__(self, file: Path, tensorboard: Path | None, from_iteration: int) -> None:
        self._file = file
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=from_iteration + 1)

    def write(self, kind: str, iteration: int, **values: Any) -> None:
        """One line, complete before it is visible to a reader of whole lines."""
        record = {"kind": kind, "iteration": iteration, **values}
        with self._file.open("a") as file:
            file.write(json.dumps(_plain(record)) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)) and math.isfinite(value):
                    self._writer.add_scalar(f"{kind}/{name}", value, iteration)
            self._writer.flush()

    def close(self) -> None:
        """Close the event files."""
        if self._writer is not None:
            self._writer.close()
