"""The last lines of a run: how good it is, beside the untrained model, and where it lies."""

from megdet_hvd.checkpoint.naming import BEST
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.report.metrics_file import read_standing


def summary(folder: RunFolder, end_iteration: int) -> list[str]:
    """Read from the run's metrics, so that a resumed run says the same as one that was not."""
    evaluations = read_standing(folder.metrics).eval
    lines = []
    if evaluations:
        last, first = evaluations[-1], evaluations[0]
        beside = ""
        if first["iteration"] == 0 and last is not first:
            beside = f"; the untrained model: {_shown(first.get('AP50'))}"
        lines.append(
            f"after {end_iteration} iterations: AP@.5 on validation {_shown(last.get('AP50'))}"
            f"{beside}; mmAP {_shown(last.get('AP'))}"
        )
    best = folder.checkpoints / BEST
    pictures = [p for p in (folder.curves, folder.detections) if p.exists()]
    lines += [f"picture: {picture}" for picture in pictures]
    lines.append(f"checkpoint: {best if best.exists() else folder.checkpoints}")
    return lines


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "none"
