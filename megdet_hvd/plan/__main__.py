"""``python -m megdet_hvd.plan [--config FILE] [--gpus 8,16,…] [key=value …]``; docs/plan.md."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from megdet_hvd.command import leave, name_of, need_environment

if __name__ == "__main__":
    need_environment()

from megdet_hvd.cli import add_config_option, make_parser, parse
from megdet_hvd.errors import StorageError, UserError, exit_code_of
from megdet_hvd.plan.advice import advice, outside
from megdet_hvd.plan.choose import choose, read_limit
from megdet_hvd.plan.prediction import Prediction, Refused, predict_all
from megdet_hvd.plan.profiles import Profile, built_in, gpu_profiles, network, read_profile
from megdet_hvd.plan.question import (
    COCO_CLASSES,
    CORES_PER_GPU,
    GPUS_PER_MACHINE,
    IMAGES_PER_GPU,
    TEMPLATES_GPUS,
    Question,
    pictures,
    question_config,
)
from megdet_hvd.plan.table import as_json, step_json, table_lines

_PASSES = "learning.accumulation="
_NUMBER = re.compile(r"[0-9]{1,9}")
MODULE = "megdet_hvd.plan"
MOST_GPUS = 1_000_000
"""Of a row: some ten times the largest machine that there is; all its ranks are counted out."""
MOST = 1_000_000_000
"""Of any other whole number on the command line."""
DEFAULT_GPU = "v100"


def main(argv: Sequence[str] | None = None) -> int:
    """Answer; returns the exit code."""
    options = parse(_parser(), argv)
    try:
        return _answer(options)
    except (UserError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code_of(error)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        MODULE,
        "Predict time, memory and efficiency of a training on 8 to 128 GPUs, before the queue.",
    )
    add_config_option(parser, "the paper's, as in coco_016.yaml")
    add = parser.add_argument
    add(
        "--gpus",
        metavar="8,16,…",
        help="numbers of GPUs (default: the paper's five; with global_batch=N those that divide)",
    )
    add(
        "--images-per-gpu",
        type=int,
        metavar="N",
        help=f"the batch follows the GPUs (default {IMAGES_PER_GPU}, the paper's); to keep a batch "
        "instead, give global_batch=N",
    )
    add("--gpu", metavar="NAME", help=f"{', '.join(gpu_profiles())} (default {DEFAULT_GPU})")
    add("--profile", type=Path, metavar="FILE", help="measured by bench profile, instead of --gpu")
    add("--network", metavar="[N x]NAME", help="adapters of a machine, such as 4xedr, 8xhdr, 25gbe")
    add(
        "--gpus-per-node",
        type=int,
        default=GPUS_PER_MACHINE,
        metavar="N",
        help="default %(default)s",
    )
    add(
        "--cores-per-gpu",
        type=int,
        default=CORES_PER_GPU,
        metavar="N",
        help="for the loaders (default %(default)s)",
    )
    add("--images", type=int, metavar="N", help="training pictures, where the files are elsewhere")
    add("--val-images", type=int, metavar="N", help="validation pictures")
    add("--classes", type=int, default=COCO_CLASSES, metavar="N", help="default %(default)s")
    add("--json", action="store_true", help="everything, in seconds, with the inputs' sources")
    add("--plot", type=Path, metavar="FOLDER", help="draw plan.png and plan.svg there")
    add("--fit", metavar="LIMIT", help="choose: deadline=6h, gpus=32 or node_hours=200")
    add(
        "--launch",
        nargs="?",
        const="submit",
        choices=("submit", "check", "print"),
        help="hand the choice (of --fit, or of one number of GPUs) to megdet_hvd.submit and the "
        "template of its size; check: look only; print: show the command",
    )
    add("--compare", type=Path, metavar="RUN", help="a run's metrics beside the prediction")
    return parser


def _answer(options: argparse.Namespace) -> int:
    _whole_numbers(options)
    if options.compare is not None:
        _of_a_run(options)
    question = _question(options)
    if options.compare is not None:
        return _compare(options, question)
    rows: list[Prediction | Refused]
    if options.fit is not None:
        row = _chosen(options, question)
        question = replace(question, images_per_gpu=row.images)
        rows = [row]
    else:
        rows = predict_all(question, _gpus(options, question))
    kept = [row for row in rows if isinstance(row, Prediction)]
    if options.json:
        print(json.dumps(as_json(question, rows), indent=1))
    else:
        print("\n".join(table_lines(question, rows)))
    if options.plot is not None:
        from megdet_hvd.plan.plot import draw_plan

        for file in draw_plan(question, kept, options.plot):
            print(f"picture: {file}", file=sys.stderr if options.json else sys.stdout)
    return _launch(options, question, kept) if options.launch else 0


def _whole_numbers(options: argparse.Namespace) -> None:
    """Raises UserError where a number of things is below 1 (pictures to validate on: below 0)."""
    names = ("images_per_gpu", "gpus_per_node", "cores_per_gpu", "images", "val_images", "classes")
    for name in names:
        value, least = getattr(options, name), 0 if name == "val_images" else 1
        if value is not None and not least <= value <= MOST:
            raise UserError(
                f"--{name.replace('_', '-')} {value}: must be at least {least}, and at most {MOST}"
            )


def _of_a_run(options: argparse.Namespace) -> None:
    """Raises UserError for options that have no place beside --compare."""
    if options.fit or options.launch or options.plot:
        raise UserError("--compare looks at a run that is there: leave out --fit, --launch, --plot")
    if options.config or options.overrides or options.images_per_gpu:
        raise UserError(
            "--compare takes the run's own settings: leave out --config, --images-per-gpu and "
            "key=value"
        )


def _question(options: argparse.Namespace) -> Question:
    if options.gpu is not None and options.profile is not None:
        raise UserError("--gpu and --profile both name a GPU: give one of them")
    profile: Profile = (
        built_in(options.gpu or DEFAULT_GPU)
        if options.profile is None
        else read_profile(options.profile)
    )
    fixed = any(word.startswith("global_batch=") for word in options.overrides)
    if fixed and options.images_per_gpu is not None:
        raise UserError(
            "global_batch=N keeps the batch and --images-per-gpu lets it follow the GPUs: give one "
            "of them"
        )
    following = [] if fixed else _dividing(options.overrides)
    config = question_config(options.config, [*options.overrides, *following])
    train, val = pictures(config) if options.images is None else (options.images, None)
    if train is None:
        raise UserError(
            "the training pictures can't be counted: data.train's annotation file isn't there, or "
            "data.keep_empty=false leaves some out; give --images N"
        )
    if options.val_images is not None:
        val = options.val_images
    elif val is None:
        val = pictures(config)[1]
    if val is None:
        raise UserError("the validation pictures are not known: give --val-images N")
    follows = None if fixed else options.images_per_gpu or IMAGES_PER_GPU
    return Question(
        config=config,
        profile=profile,
        network=network(options.network or profile.network),
        gpus_per_machine=options.gpus_per_node,
        cores_per_gpu=options.cores_per_gpu,
        images_per_gpu=follows,
        train_images=train,
        val_images=val,
        classes=options.classes,
    )


def _dividing(overrides: Sequence[str]) -> list[str]:
    """A batch of one image a pass: the configuration's own need not divide, where GPUs decide."""
    given = [word.partition("=")[2] for word in overrides if word.startswith(_PASSES)]
    return [f"global_batch={given[-1]}"] if given and _NUMBER.fullmatch(given[-1]) else []


def _gpus(options: argparse.Namespace, question: Question) -> list[int]:
    if options.gpus is None:
        unit, batch = question.config.learning.accumulation, question.config.global_batch
        if question.images_per_gpu is None:
            divides = [gpus for gpus in TEMPLATES_GPUS if batch % (gpus * unit) == 0]
            return divides or list(TEMPLATES_GPUS)
        return list(TEMPLATES_GPUS)
    words = [word.strip() for word in options.gpus.split(",")]
    if not all(_NUMBER.fullmatch(word) and 0 < int(word) <= MOST_GPUS for word in words):
        raise UserError(
            f"--gpus {options.gpus}: give whole numbers above 0, such as 8,16,32, each at most "
            f"{MOST_GPUS}"
        )
    return list(dict.fromkeys(map(int, words)))


def _chosen(options: argparse.Namespace, question: Question) -> Prediction:
    if options.gpus is not None:
        raise UserError("--fit chooses the GPUs itself: leave out --gpus, or give --fit gpus=N")
    if question.images_per_gpu is None:
        raise UserError("--fit chooses the batch itself: leave out global_batch=N")
    open_images = replace(question, images_per_gpu=options.images_per_gpu)
    return choose(open_images, read_limit(options.fit))


def _compare(options: argparse.Namespace, question: Question) -> int:
    from megdet_hvd.plan.compare import comparison_lines, measured_run, run_prediction

    given = None if options.gpus is None else _gpus(options, question)
    if given is not None and len(given) != 1:
        raise UserError(f"--compare takes one number of GPUs, and --gpus has {options.gpus}")
    measured = measured_run(options.compare, given[0] if given else None)
    row = run_prediction(question, options.compare, measured)
    caveats = outside(question, row)
    if options.json:
        print(
            json.dumps(
                {
                    "run": str(options.compare),
                    "measured": vars(measured),
                    "predicted": {**step_json(row), "warnings": caveats},
                },
                indent=1,
            )
        )
        return 0
    print("\n".join(comparison_lines(options.compare, measured, row, caveats)))
    return 0


def _launch(options: argparse.Namespace, question: Question, rows: list[Prediction]) -> int:
    from megdet_hvd.job_folder import find_job_folder
    from megdet_hvd.plan.launch import submit_words

    if len(rows) != 1:
        raise UserError("--launch hands on one choice: give --fit, or one number with --gpus")
    row = rows[0]
    root = find_job_folder(None, Path.cwd(), os.environ)
    if root is None:
        raise UserError(
            f"--launch: there is no folder for jobs, which has slurm/job.sh: neither here, nor in "
            f"MEGDET_ROOT; {name_of('megdet_hvd.init')} FOLDER makes one"
        )
    if not row.fits:
        raise UserError(f"--launch: {'; '.join(advice(question, row))}")
    words = submit_words(
        row, root, options.config, options.overrides, cores_per_gpu=options.cores_per_gpu
    )
    if options.launch == "check":
        words.insert(0, "--check")
    import shlex

    stream = sys.stderr if options.json else sys.stdout
    print(f"\n{name_of('megdet_hvd.submit')} {shlex.join(words)}", file=stream, flush=True)
    if options.launch == "print":
        return 0
    from megdet_hvd.submit.__main__ import main as submit

    with redirect_stdout(stream):  # standard output is JSON's alone
        return submit(words)


if __name__ == "__main__":
    leave(main)
