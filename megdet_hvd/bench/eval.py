"""COCO's numbers of made-up detections: ours against pycocotools.

``python -m megdet_hvd.bench eval [--images 5000] [--detections 100] [--turns 3] [--json FILE]``:
from detections in memory to the 12 numbers, one process. pycocotools is called as its users call it
(``loadRes`` of an array, ``COCOeval``), and has its ground truth ready, which ours brings into form
each time. Both sides' numbers must be the same to 1e-12.
"""

import argparse
import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import RunError

if TYPE_CHECKING:
    from megdet_hvd.evaluation.boxes import FoundBoxes, GroundTruth

CLASSES, BOXES = 80, 7
"""As in COCO: classes, and true boxes of a picture in the mean."""
EQUAL = 1e-12


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = make_parser("megdet_hvd.bench eval", (__doc__ or "").split("\n")[0], settings=False)
    parser.add_argument("--images", type=int, default=5000, help="pictures")
    parser.add_argument("--detections", type=int, default=100, help="of each picture")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--json", type=record_file, metavar="FILE", help="write the record there, too"
    )
    options = parse(parser, arguments)
    for name in ("images", "detections", "turns"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    import torch

    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.bench.turns import take_turns, turns_table
    from megdet_hvd.evaluation.coco_ap import score

    machine = describe_machine(torch.device("cpu"))
    print(
        f"{machine}; {options.images} pictures × {options.detections} detections, "
        f"{options.turns} turns",
        flush=True,
    )
    truth, found = made_up_boxes(options.images, options.detections)
    reference = pycocotools_truth(truth)
    rows = results_array(found)
    numbers: dict[str, list[float]] = {}

    def ours() -> None:
        stats = score(truth, found).stats.values()
        numbers["ours"] = [-1.0 if value is None else value for value in stats]

    def theirs() -> None:
        numbers["pycocotools"] = pycocotools_numbers(reference, rows)

    sides = take_turns({"ours": ours, "pycocotools": theirs}, options.turns)
    apart = float(np.max(np.abs(np.subtract(numbers["ours"], numbers["pycocotools"]))))
    if apart > EQUAL:
        raise RunError(f"the sides' numbers differ by {apart:.1e}: {numbers}")
    print("\n".join(turns_table(sides)))
    print(f"the 12 numbers differ by {apart:.1e} at most; AP {numbers['ours'][0]:.4f}")
    if options.json is not None:
        settings = {"images": options.images, "detections": options.detections}
        write_record(options.json, machine, settings, sides=sides, apart=apart)


def made_up_boxes(images: int, detections: int) -> "tuple[GroundTruth, FoundBoxes]":
    """True boxes, and detections of which a third lie near one of their picture's. Seeded."""
    from megdet_hvd.evaluation.boxes import FoundBoxes, GroundTruth

    random = np.random.default_rng(0)
    count, total = images * BOXES, images * detections

    def boxes(number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.hstack([random.uniform(0, 500, (number, 2)), random.uniform(4, 200, (number, 2))])

    owners, labels = np.sort(random.integers(0, images, count)), random.integers(1, 81, count)
    true = boxes(count)
    truth = GroundTruth(
        images=images,
        categories=tuple(f"class {k}" for k in range(1, CLASSES + 1)),
        owners=owners,
        labels=labels,
        boxes=true,
        areas=true[:, 2] * true[:, 3],
        crowds=random.random(count) < 0.01,
    )
    of = np.repeat(np.arange(images), detections)
    first, own = np.searchsorted(owners, of), np.bincount(owners, minlength=images)[of]
    near = (random.random(total) < 1 / 3) & (own > 0)
    target = np.minimum(first + random.integers(0, 1 << 30, total) % np.maximum(own, 1), count - 1)
    moved = true[target] + random.normal(0, 6, (total, 4))
    found = np.where(near[:, None], moved, boxes(total))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    classes = np.where(near, labels[target], random.integers(1, CLASSES + 1, total))
    order = np.lexsort((-(scores := random.random(total)), of))
    return truth, FoundBoxes(of, classes[order], found[order].round(3), scores[order])


def pycocotools_truth(truth: "GroundTruth") -> Any:
    """A ``COCO`` of pycocotools that has read the true boxes."""
    from pycocotools.coco import COCO

    columns = (truth.owners, truth.labels, truth.boxes, truth.areas, truth.crowds)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in range(truth.images)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(truth.categories, 1)],
            "annotations": [
                {
                    "id": number,
                    "image_id": owner,
                    "category_id": label,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
                for number, (owner, label, box, area, crowd) in enumerate(
                    zip(*(column.tolist() for column in columns), strict=True), start=1
                )
            ],
        }
        coco.createIndex()
    return coco


def results_array(found: "FoundBoxes") -> np.ndarray[Any, np.dtype[np.float64]]:
    """(d, 7) picture, x, y, w, h, score, class: the quickest form that ``loadRes`` takes."""
    columns = [found.owners[:, None], found.boxes, found.scores[:, None], found.labels[:, None]]
    return np.hstack(columns)


def pycocotools_numbers(truth: Any, rows: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """The 12 numbers, by pycocotools alone."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]
