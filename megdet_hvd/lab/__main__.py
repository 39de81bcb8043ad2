"""``python -m megdet_hvd.lab NAME …``: the paper's experiments on this machine; docs/lab/."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()

from megdet_hvd.cli import add_config_option, make_parser, parse
from megdet_hvd.errors import RunError, StorageError, UserError, exit_code_of
from megdet_hvd.lab.experiments import EXPERIMENTS
from megdet_hvd.lab.own_words import settled
from megdet_hvd.lab.report import OTHERS, write_report, write_verdicts
from megdet_hvd.lab.scale import FULL, GRADUAL, QUICK
from megdet_hvd.lab.sitting import OVERHEAD, Sitting, tell
from megdet_hvd.run_lock.lock import take

MODULE = "megdet_hvd.lab"
BEFOREHAND = [experiment.name for experiment in EXPERIMENTS if experiment.beforehand]
NAMES = (*(experiment.name for experiment in EXPERIMENTS), *OTHERS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, and write tables and pictures; returns the exit code."""
    options = parse(_parser(), argv)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        _run(options)
    except (UserError, RunError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code_of(error)
    except KeyboardInterrupt:
        print("stopped; the same command carries on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        MODULE,
        "Repeat the paper's experiments at a size that two cores can do. Words are experiments "
        f"({', '.join(NAMES)}; all) and settings, key.sub=value. What has a record is not done "
        "again; the same command carries on what was broken off.",
    )
    add_config_option(parser, "a slim detector on rendered scenes of 96 pixels")
    add = parser.add_argument
    scales = parser.add_mutually_exclusive_group()
    scales.add_argument(
        "--quick",
        dest="scale",
        action="store_const",
        const=QUICK,
        help="minutes instead of hours; the numbers say nothing",
    )
    scales.add_argument(
        "--gradual",
        dest="scale",
        action="store_const",
        const=GRADUAL,
        help="a warm-up of 100 updates at every batch, the paper's rate, twice the pictures",
    )
    parser.set_defaults(scale=FULL)
    add("--seeds", type=int, nargs="+", metavar="N", help="default: 0 1 2, with --quick 0")
    out = Path("runs/lab")
    add("--out", type=Path, default=out, metavar="FOLDER", help=f"records, tables (default {out})")
    add("--work", type=Path, metavar="FOLDER", help="trainings under way (default OUT/work)")
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="cores at most (default: all); each training takes one",
    )
    add("--report", action="store_true", help="only write tables and pictures of what is there")
    add("--keep", action="store_true", help="leave the run folders of finished trainings")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: must be at least 1")
    names, words = experiments_and_overrides(options.overrides)
    scale, overrides = settled(options.scale, words)
    seeds = _seeds(options.seeds or scale.seeds)
    sitting = Sitting(
        scale=scale,
        records=options.out,
        work=options.work or options.out / "work",
        jobs=options.jobs,
        config=options.config,
        overrides=overrides,
        keep=options.keep,
    )
    if not options.report:
        sitting.require_room()
        with _alone_in(sitting.work):
            for seed in seeds:
                _run_seed(sitting, names, seed, first=seed == seeds[0])
    for name in names:
        for file in write_report(sitting, name, seeds):
            tell(f"written: {file}")
    for file in write_verdicts(sitting):
        tell(f"written: {file}")


def _seeds(given: Sequence[int]) -> list[int]:
    """Each once: a seed that counted twice would make its own standard error.

    Raises:
        UserError: one is no seed.
    """
    for seed in given:
        if not 0 <= seed < 2**63:
            raise UserError(f"--seeds {seed}: a seed is a whole number from 0 to 2^63 - 1")
    return list(dict.fromkeys(given))


@contextmanager
def _alone_in(work: Path) -> Iterator[None]:
    """Hold the folder of trainings under way: two sittings would do the same ones twice.

    Raises:
        UserError: another sitting works there, or it can't be written.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = take(work, say=tell)
    except OSError as error:
        raise UserError(
            f"{work}: trainings can't be kept there ({error.strerror}); try another --work"
        ) from error
    try:
        yield
    finally:
        lock.release()


def experiments_and_overrides(words: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """What of the command line's words names experiments, and what settings.

    Raises:
        UserError: a word is neither, or no experiment is named.
    """
    named = [word for word in words if "=" not in word]
    known = f"the experiments are {', '.join(NAMES)}, and all of them: all"
    for word in named:
        if word not in (*NAMES, "all"):
            raise UserError(f"{word}: there is no such experiment; {known}")
    if not named:
        raise UserError(f"no experiment is named; {known}")
    every = {one for one in NAMES if one not in BEFOREHAND} if "all" in named else set()
    chosen = tuple(name for name in NAMES if name in every.union(named))
    return chosen, tuple(word for word in words if "=" in word)


def _run_seed(sitting: Sitting, names: Sequence[str], seed: int, *, first: bool) -> None:
    wanted = []
    for one in EXPERIMENTS:
        if one.name not in names:
            continue
        begun = sitting.seeds_with(one.runs(sitting.scale)) if one.once else []
        if one.once and not begun and not first:
            continue
        if begun and begun[0] != seed:
            tell(f"seed {seed}: {one.name} is for one seed, and {begun[0]} has it")
            continue
        wanted.append(one)
    runs = [run for one in wanted for run in one.runs(sitting.scale)]
    if runs:
        sitting.train(runs, seed)
    if "variance" in names:
        sitting.variance(seed)
    if OVERHEAD in names and first:
        sitting.overhead(seed)


if __name__ == "__main__":
    leave(main)
