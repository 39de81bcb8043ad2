"""Mutated annotation files: never a traceback, never a wrong read, one verdict.

What pycocotools reads is measured by it and by us, with the same detections; only for the reasons
listed here a file is refused that it reads, or is the number another, and then the user is told.
"""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from megdet_hvd.data.__main__ import main
from megdet_hvd.data.batch import Detections
from megdet_hvd.data.coco import read_sources
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.source import PictureSource
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.coco_ap import STATS, score
from megdet_hvd.evaluation.numbering import Numbering
from megdet_hvd.evaluation.results_json import coco_results

from .mutate_annotations import mutated

SIZE = (80, 60)
NAMES = [f"p{k}.png" for k in range(4)]
SEEDS = range(0, 240)
TOLD = (
    "the id 0",
    "pycocotools leaves them out",
    "iscrowd as a text",
)
"""Notes that say that pycocotools has another number."""
OWN_REASONS = (
    "duplicate annotation id",  # pycocotools takes the last one for all
    "duplicate image id",  # the boxes of one picture on another
    "duplicate category id",
    "image needs an id",  # null: no two of them can be told apart
    "category needs an id",
    "image needs a file_name",  # torchvision reads the picture by it
    "missing picture file",
    "can't be read",  # no size, and no picture to take it from
    "NaN or infinity",  # found by any detection, as pycocotools has it
    "iscrowd must be 0 or 1",
    "declares no categories",
    "must be a list of objects",
    "bbox of four numbers",  # where no detection and no truth meet, it isn't looked at
    "annotation has no usable",
    "no picture is left",
    "is not JSON",  # another encoding, that of this machine
    "it has no boxes",
)
"""What we refuse though pycocotools gives a number."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "images"
    folder.mkdir()
    for k, name in enumerate(NAMES):
        Image.new("RGB", SIZE, (40 * k, 90, 10)).save(folder / name)
    return folder


def detections_of(picture: int, categories: int) -> list[tuple[list[float], float, int]]:
    """Boxes, scores and classes (0…), the same for whoever asks."""
    draw = np.random.default_rng(picture)
    found = []
    for _ in range(12):
        x, y, w, h = draw.uniform(0, 40), draw.uniform(0, 30), *draw.uniform(5, 35, 2)
        box = [round(float(v), 1) for v in (x, y, w, h)]
        found.append((box, round(float(draw.uniform(0.1, 1)), 2), int(draw.integers(categories))))
    return sorted(found, key=lambda item: -item[1])


def by_pycocotools(text: bytes) -> list[float] | None:
    """The 12 numbers; None where pycocotools fails."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    try:
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            truth = COCO()
            truth.dataset = json.loads(text.decode("utf-8-sig"))
            assert type(truth.dataset) is dict
            truth.createIndex()
            categories = sorted(truth.cats)
            for ids in (categories, sorted(truth.imgs)):  # numpy makes floats of 0 and 2**63 + 1
                assert np.unique(ids).tolist() == ids
            results = [
                {"image_id": number, "category_id": categories[label], "bbox": box, "score": value}
                for number, entry in truth.imgs.items()
                for box, value, label in detections_of(_picture(entry["file_name"]), 3)
            ]
            evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [float(value) for value in evaluation.stats]
    except Exception:  # whatever it stumbles on
        return None


def _picture(name: str) -> int:
    return next(k for k, own in enumerate(NAMES) if own.split(".")[0] in name.lower())


def by_us(index: ImageIndex) -> tuple[list[float], list[list[dict[str, Any]]]]:
    """The 12 numbers, -1 for none, and the results for a file."""
    classes: Sequence[Any] = sorted(
        [*index.category_ids, *index.headings], key=lambda one: (isinstance(one, str), one)
    )
    label_of = {number: k + 1 for k, number in enumerate(index.category_ids)}
    found = {}
    for position in range(len(index)):
        items = detections_of(_picture(index.file_names[position]), 3)
        items = [item for item in items if item[2] < len(classes) and classes[item[2]] in label_of]
        boxes = np.asarray([box for box, _, _ in items], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found[position] = Detections(
            torch.from_numpy(boxes),
            torch.tensor([value for _, value, _ in items], dtype=torch.float64),
            torch.tensor([label_of[classes[label]] for _, _, label in items], dtype=torch.int64),
        )
    numbering = Numbering.of(index, range(len(index)))
    boxes_found = numbering.found_boxes(found)
    with np.errstate(all="ignore"):
        result = score(numbering.ground_truth(), boxes_found)
    stats = [result.stats[name] for name in STATS]
    return [-1.0 if v is None else v for v in stats], coco_results(numbering, boxes_found)


def read(file: Path, images: Path, purpose: Any) -> ImageIndex | str:
    try:
        return read_sources(
            [PictureSource(file, images)],
            keep_empty=purpose == "val",
            invalid_boxes="stop",
            purpose=purpose,
        )
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("first", range(SEEDS.start, SEEDS.stop, 40))
@pytest.mark.filterwarnings("ignore")
def test_every_mutation_is_read_as_pycocotools_does_or_refused(
    images: Path, tmp_path: Path, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    told = compared = refused = 0
    for seed in range(first, first + 40):
        text = mutated(seed, NAMES, *SIZE)
        file = tmp_path / f"{seed}.json"
        file.write_bytes(text)
        theirs = by_pycocotools(text)
        index = read(file, images, "val")
        if isinstance(index, str):
            assert str(file) in index, seed
            assert theirs is None or any(reason in index for reason in OWN_REASONS), (seed, index)
            refused += 1
        else:
            ours, results = by_us(index)
            json.dumps(results)
            if any(note in line for line in index.notes for note in TOLD):
                told += 1
            elif theirs is not None:
                assert ours == pytest.approx(theirs, abs=1e-12), (seed, index.notes)
                compared += 1
        # Training and the checker: the same verdict, and the same files stop it.
        train = read(file, images, "train")
        code = main(["check", str(file), "--images", str(images), "--no-decode"])
        said = capsys.readouterr().out
        doubts = () if isinstance(train, str) else train.doubts
        assert code == (1 if isinstance(train, str) or doubts else 0), (seed, train, said)
    assert compared > 5
    assert refused > 2
    assert told + compared + refused <= 40
