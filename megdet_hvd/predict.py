"""``python -m megdet_hvd.predict``: pictures with their detections drawn on them."""

import argparse
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()

from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import STORAGE_ERROR, USER_ERROR, StorageError, UserError
from megdet_hvd.storage import as_storage_error, is_transient

if TYPE_CHECKING:
    from megdet_hvd.evaluation.predictor import Predictor


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, detect, write, and return the exit code: 2 if any picture could not be used.

    6: storage failed at the moment, and that is all.
    """
    parser = make_parser(
        "megdet_hvd.predict",
        "Detect objects and write each picture with boxes, class names and scores on it.",
        settings=False,
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="checkpoint, run folder (its latest one), or weights of torchvision's Faster R-CNN",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="picture file, folder of pictures, or pattern in quotes ('shots/**/*.jpg')",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions"),
        metavar="FOLDER",
        help="folder for the pictures, made where missing (default: predictions)",
    )
    parser.add_argument(
        "--score",
        type=_score,
        default=0.5,
        help="draw and list detections from this score on, 0…1 (default: 0.5)",
    )
    parser.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="black and white of pictures of more than 8 bits (default: data.value_range of the "
        "training)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)"
    )
    parser.add_argument(
        "--detector",
        metavar="MODULE:NAME",
        help="what makes the detector, where the checkpoint is of one of your own",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="take for it what the checkpoint names, and import that, which runs it",
    )
    found = parse(parser, argv)
    from megdet_hvd.data.named_pictures import named_pictures
    from megdet_hvd.evaluation.predictor import load_detector

    try:
        images, unknown = named_pictures(found.images)
        predictor = load_detector(
            found.checkpoint, found.device, detector=found.detector, trust_code=found.trust_code
        )
        if found.value_range is not None:
            predictor.value_range = tuple(found.value_range)
        problems = [*unknown, *predict(predictor, images, found.out, found.score)]
    except (UserError, StorageError, OSError) as error:
        known = as_storage_error(error)
        if not isinstance(known, UserError | StorageError):
            raise
        problems = [known]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        return 0
    return STORAGE_ERROR if all(isinstance(p, StorageError) for p in problems) else USER_ERROR


def predict(
    predictor: "Predictor", images: Sequence[Path], folder: Path, score: float
) -> list[UserError | StorageError]:
    """Write a PNG for each picture and print what is on it; what went wrong is returned.

    A picture that can't be decoded doesn't keep the others from being done.

    Raises:
        UserError: the folder can't be written to.
        StorageError: so it is at the moment.
    """
    from megdet_hvd.data.depth import all_but_black, dark_words
    from megdet_hvd.data.problems import printable
    from megdet_hvd.evaluation.predictor import as_picture
    from megdet_hvd.report.predictions import draw_prediction

    problems: list[UserError | StorageError] = []
    dark: list[str] = []
    for image, out in zip(images, output_files(images, folder), strict=True):
        try:
            picture = as_picture(image, predictor.value_range)
        except (UserError, StorageError) as error:
            problems.append(error)
            continue
        if (black := all_but_black(picture)) is not None:
            dark.append(f"{image}{black}")
        (detections,) = predictor(picture)
        try:
            shown = draw_prediction(picture, detections, predictor.categories, out, score=score)
        except OSError as error:
            raised = StorageError if is_transient(error) else UserError
            raise raised(
                f"{out}: cannot be written ({error.strerror or error}); choose another --out"
            ) from error
        what = ", ".join(shown) or f"nothing at or above {score}"
        print(printable(f"{image}: {what} → {out}"), flush=True)
    if dark:
        words = dark_words(len(dark), len(images), dark[0], "--value-range 0 4095")
        print(f"warning: {words}", file=sys.stderr)
    return problems


def output_files(images: Iterable[Path], folder: Path) -> list[Path]:
    """A file name in ``folder`` for each picture: its own, ``.png``, and a number where taken.

    Pictures of the same name from different folders keep apart, whatever the case of their
    letters. No output takes the place of a picture that was given, by whatever way its folder is
    named, nor of any file that isn't an output of an earlier call.
    """
    from megdet_hvd.report.predictions import is_prediction

    images = list(images)
    taken = {_key(image) for image in images}
    files = []
    last: dict[str, int] = {}
    for image in images:
        number, name = last.get(image.stem, 1), f"{image.stem}.png"
        while _key(folder / name) in taken or (
            os.path.lexists(folder / name) and not is_prediction(folder / name)
        ):
            number += 1
            name = f"{image.stem}_{number}.png"
        last[image.stem] = number
        taken.add(_key(folder / name))
        files.append(folder / name)
    return files


def _key(path: Path) -> str:
    return os.path.realpath(path).casefold()


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


if __name__ == "__main__":
    leave(main)
