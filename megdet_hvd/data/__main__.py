"""``python -m megdet_hvd.data``: check a data set; fetch a public one."""

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence

from megdet_hvd.command import leave, name_of, need_environment

if __name__ == "__main__":
    need_environment()

from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.storage import as_storage_error, is_transient
from megdet_hvd.version import add_version_option
from megdet_hvd.wording import counted

CLEAN, PROBLEMS, BAD_USAGE, STORAGE = 0, 1, 2, 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0: nothing wrong, 1: problems found, 2: bad usage or a failed download.

    6: storage failed at the moment, so that nothing can be said.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows only ASCII
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE
    except (StorageError, OSError) as error:
        known = as_storage_error(error)
        if not isinstance(known, StorageError):
            raise
        print(f"error: {known}", file=sys.stderr)
        return STORAGE
    except KeyboardInterrupt:
        print("interrupted; the same command carries on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name_of("megdet_hvd.data"), description="Check a data set; fetch a public one."
    )
    add_version_option(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="read a COCO-format data set through and say what is wrong with it",
        description="Read a data set through by the rules of training, for which several files are "
        "one. Exit code 0: nothing wrong. 1: problems found: training would stop, or is warned. 2: "
        "bad usage. 6: the storage fails at the moment.",
    )
    check.add_argument(
        "paths", nargs="+", metavar="PATH", help="annotation files, or a COCO-format folder"
    )
    check.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="FOLDER",
        help="picture folder, once for all files, or once per file in their order (--images A "
        "--images B); left out, it is looked for",
    )
    check.add_argument(
        "--val",
        action="store_true",
        help="by the rules of evaluation (data.val): pictures and files without boxes are fine",
    )
    check.add_argument("--no-decode", action="store_true", help="don't open the pictures")
    check.add_argument("--threads", type=_positive, default=None, help="pictures read at a time")
    check.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="data.value_range of pictures of more than 8 bits: 0 4095 for a 12-bit camera",
    )
    check.add_argument(
        "--first", type=_positive, default=5, help="cases shown of each problem (default 5)"
    )
    check.add_argument(
        "--draw", type=_positive, metavar="N", help="draw ground truth of N pictures"
    )
    check.add_argument(
        "--out", default="ground_truth.png", metavar="FILE", help="where --draw goes (PNG)"
    )
    check.set_defaults(command=_check)

    fetch = commands.add_parser("fetch", help="download public data or weights")
    things = fetch.add_subparsers(required=True, metavar="WHAT")
    coco = things.add_parser("coco2017", help="COCO 2017: 20 GB to load, as much again unpacked")
    coco.add_argument(
        "--to", default="data/coco2017", metavar="FOLDER", help="default: %(default)s"
    )
    coco.add_argument(
        "--parts",
        default="annotations,val,train",
        help="some of annotations, val, train, separated by commas (default: all)",
    )
    coco.add_argument("--keep-archives", action="store_true", help="keep the zip files")
    coco.add_argument("--base-url", metavar="URL", help="a mirror of images.cocodataset.org")
    coco.set_defaults(command=_fetch_coco)
    backbone = things.add_parser("backbone", help="torchvision's ImageNet weights of a ResNet")
    backbone.add_argument(
        "--name", default="resnet50", choices=["resnet18", "resnet50", "resnet101"]
    )
    backbone.add_argument("--weights", default="IMAGENET1K_V1", metavar="NAME")
    backbone.add_argument(
        "--to", default=None, metavar="FOLDER", help="default: where PyTorch looks for it by name"
    )
    backbone.add_argument("--base-url", metavar="URL", help="a mirror of download.pytorch.org")
    backbone.set_defaults(command=_fetch_backbone)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def _value_range(given: list[float] | None) -> ValueRange:
    if given is None:
        return "auto"
    low, high = given
    if not low < high:
        raise UserError(f"--value-range {low:g} {high:g}: give black, then white: 0 4095")
    return low, high


def _check(options: argparse.Namespace) -> int:
    from megdet_hvd.data.check import check_sources, numbers
    from megdet_hvd.data.coco import Purpose
    from megdet_hvd.data.layout import find_sources
    from megdet_hvd.data.problems import report_lines
    from megdet_hvd.report.ground_truth import contact_sheet

    sources = find_sources(
        [expand_path(path) for path in options.paths],
        [expand_path(p) for p in options.images],
        say=lambda line: print(f"note: {line}"),
    )
    purpose: Purpose = "val" if options.val else "train"
    report = check_sources(
        sources,
        purpose=purpose,
        decode_pictures=not options.no_decode,
        threads=options.threads or len(os.sched_getaffinity(0)),
        progress=_Progress(),
        value_range=_value_range(options.value_range),
    )
    for source in report.sources:
        print(f"\n{source.annotations}\n  pictures in {source.images}")
        decoded = "not opened" if options.no_decode else f"{source.decoded} decoded"
        lines = [*numbers(source.index), f"pictures {decoded}"]
        print("\n".join(f"  {line}" for line in lines))
        for note in source.notes:
            print(f"  note: {note}")
    problems = [*report.problems, *report.doubts]
    if problems:
        print(f"\n{counted(len(problems), 'problem')}")
        print("\n".join(report_lines(problems, options.first)))
        if not report.problems:
            print("training and evaluation would go on all the same, with a warning")
    else:
        print("\nnothing wrong was found")
    if options.draw:
        out = expand_path(options.out)
        indexes = [source.index for source in report.sources]
        try:
            contact_sheet(indexes, options.draw).save(out, "PNG")
        except OSError as error:
            if is_transient(error):
                raise
            raise UserError(f"--out {out}: {error.strerror or error}") from None
        print(f"ground truth drawn in {out}")
    return PROBLEMS if problems else CLEAN


class _Progress:
    """A line on stderr every few seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last > 5:
            self._last = time.monotonic()
            print(f"{done} of {total} pictures read", file=sys.stderr)


def _fetch_coco(options: argparse.Namespace) -> int:
    from megdet_hvd.data.fetch.catalogue import COCO2017
    from megdet_hvd.data.fetch.run import fetch_coco2017

    parts = [part.strip() for part in options.parts.split(",")]
    unknown = [part for part in parts if part not in COCO2017]
    if unknown:
        raise UserError(
            f"--parts {options.parts}: {unknown[0]!r} is not one of {', '.join(COCO2017)}"
        )
    fetch_coco2017(
        expand_path(options.to),
        parts=parts,
        base_url=options.base_url,
        keep_archives=options.keep_archives,
        say=_say,
    )
    return CLEAN


def _fetch_backbone(options: argparse.Namespace) -> int:
    from megdet_hvd.data.fetch.run import fetch_backbone, torch_hub_folder

    folder = expand_path(options.to) if options.to else torch_hub_folder()
    file = fetch_backbone(
        folder, options.name, options.weights, base_url=options.base_url, say=_say
    )
    print(file)
    return CLEAN


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    leave(main)
