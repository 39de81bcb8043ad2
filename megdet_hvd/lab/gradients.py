"""The variance of the gradient against the batch, at fixed weights: eqs. (2) to (4).

Linear scaling rests on Var(∇l_N) = σ²/N. With frozen BN, where no picture touches another one's
loss, that is arithmetic; under CGBN pictures share statistics, and it is an assumption. Here it is
measured: the total variance (the trace of the covariance) of gradients of batches of N pictures,
N = 1, 2, 4 …, and the slope of its logarithm over log N, to be held against −1. Beside it stands
the spread of the share of positives among what is drawn for the loss, the third complaint of the
paper's introduction.

The same pictures are cut into batches of every N: a picture with an uncommonly large gradient then
adds to all variances alike, and the slope stays. They come from the stream of epochs, none twice.
The sample variance over the batches is unbiased all the same: what drawing without replacement
takes from the variance of a batch, its negative covariance with the others gives back.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.command import leave
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import USER_ERROR

if TYPE_CHECKING:
    from torch import nn

    from megdet_hvd.data.batch import Batch
    from megdet_hvd.model.detector import Detector


@dataclass(frozen=True)
class GradientVariance:
    """Gradients of one batch size."""

    images: int
    """N."""
    batches: int
    variance: float
    """Total, summed over all parameters."""
    squared_mean: float
    """Of the mean gradient, less what its own noise adds to it."""
    foreground: dict[str, tuple[float, float]]
    """Stage → mean and standard deviation, over batches, of a batch's mean share of positives."""


def gradient_variance(detector: "Detector", batches: "Sequence[Batch]") -> GradientVariance:
    """Measure over ``batches`` of equally many pictures; the weights stay as they are.

    tr Σ = (Σ‖g_i‖² − ‖Σg_i‖²/M) / (M − 1), in float64.
    """
    import torch

    from megdet_hvd.model.balance import foreground_shares

    detector.train()
    parameters = [p for p in detector.parameters() if p.requires_grad]
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    squares = 0.0
    shares: dict[str, list[float]] = {"rpn": [], "box": []}
    for batch in batches:
        for parameter in parameters:
            parameter.grad = None
        losses = detector(batch)
        (torch.stack([part.sum() for part in losses.values()]).sum() / len(batch)).backward()
        for added, parameter in zip(total, parameters, strict=True):
            if parameter.grad is not None:
                gradient = parameter.grad.double()
                added += gradient
                squares += float(gradient.square().sum())
        for stage, values in shares.items():
            drawn = getattr(detector.sample_balance, stage)
            pictures = [float(share) for share in foreground_shares(drawn)]
            values.append(sum(pictures) / max(1, len(pictures)))
    count = len(batches)
    sum_squared = sum(float(part.square().sum()) for part in total)
    variance = (squares - sum_squared / count) / (count - 1)
    return GradientVariance(
        images=len(batches[0]),
        batches=count,
        variance=variance,
        squared_mean=sum_squared / count**2 - variance / count,
        foreground={stage: _mean_and_deviation(values) for stage, values in shares.items()},
    )


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))


def log_slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Least squares slope of log(values) over log(sizes); −1 where values fall as 1/size."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    x_mean, y_mean = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    over = math.fsum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return over / math.fsum((x - x_mean) ** 2 for x in xs)


def spread_slope(rows: Sequence[Mapping[str, Any]], stage: str = "box") -> float:
    """Of the spread of a batch's share of positives, over N; −0.5 where pictures are independent.

    ``rows`` are a record's: ``images``, and ``foreground`` with mean and deviation by stage.
    """
    spreads = [max(row["foreground"][stage][1], 1e-9) for row in rows]
    return log_slope([row["images"] for row in rows], spreads)


def cut_twice(sizes: Sequence[int], pictures: int) -> list[int]:
    """Those of which so many pictures make two batches at least: a variance takes two."""
    return [images for images in sizes if 2 * images <= pictures]


def detector_at(config: Config, weights: Path | None, bn_size: int | None) -> "Detector":
    """The detector as a training begins with it, or with a checkpoint's weights.

    ``bn_size``: images a statistic; None: all of a batch share theirs.
    """
    from megdet_hvd.bn import convert_cross_gpu_bn
    from megdet_hvd.data.factory import open_datasets
    from megdet_hvd.evaluation.trained import read_trained
    from megdet_hvd.model.build import build_detector, local_norm
    from megdet_hvd.model.detector import Detector

    detector: nn.Module
    if weights is None:
        classes = open_datasets(config.data, is_main=True, wait=lambda: None).train.categories
        detector = build_detector(
            config.model, len(classes), local_norm(config.model), seed=config.seed
        )
    else:
        detector = read_trained(weights).build()
    if bn_size is not None:
        convert_cross_gpu_bn(detector, images_per_statistic=bn_size)
    assert isinstance(detector, Detector)
    return detector


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m megdet_hvd.lab.gradients``: one detector, all N; writes JSON."""
    parser = make_parser("megdet_hvd.lab.gradients", (__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--config", type=Path, required=True)
    add("--weights", type=Path, help="a run folder or checkpoint; without: as training begins")
    add("--bn-size", type=int, help="images a statistic; without: all of a batch")
    add("--sizes", type=int, nargs="+", required=True, help="N")
    add("--pictures", type=int, required=True, help="cut into batches; twice the largest N or more")
    add("--out", type=Path, required=True)
    options = parse(parser, argv)
    config = load_config(options.config, options.overrides)
    from megdet_hvd.data.factory import open_datasets
    from megdet_hvd.lab.stream import training_batches

    index = open_datasets(config.data, is_main=True, wait=lambda: None).train
    pictures = min(options.pictures, len(index))  # scenes without a box are none to train on
    sizes = cut_twice(options.sizes, pictures)
    if len(sizes) < 2:
        print(f"{pictures} training pictures are too few for two batches of two sizes")
        return USER_ERROR
    detector = detector_at(config, options.weights, options.bn_size)
    rows: list[dict[str, Any]] = []
    for images in sizes:
        batches = training_batches(index, config, images, pictures // images)
        found = gradient_variance(detector, batches)
        rows.append(vars(found))
        print(f"N = {images}: variance {found.variance:.4g}", flush=True)
    slope = log_slope(sizes, [row["variance"] for row in rows])
    record = {"slope": slope, "rows": rows}
    write_bytes(options.out, (json.dumps(record, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    leave(main)
