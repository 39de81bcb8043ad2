"""What a template and its user ask for, and what the ranks are started with. Pure."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.checkpoint.naming import no_run_words
from megdet_hvd.cli import TrainArguments, parse_train_arguments
from megdet_hvd.config.load import load_config, override
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

TRAIN = "megdet_hvd.train"
PIPELINE = "megdet_hvd.pipeline"
INSTEAD = {"--preflight": "megdet_hvd.preflight", "--placement": "megdet_hvd.placement"}
"""Words that run another program in training's place, in the same job and the same way."""
EVALUATORS = "--evaluators"
"""``--evaluators N``: the pipeline in training's place, the last N of its ranks evaluate."""
_SETTING = "pipeline.evaluators"


@dataclass(frozen=True)
class JobArguments:
    """What a job shall do."""

    module: str
    """The program of the ranks."""
    words: tuple[str, ...]
    """Its configuration file and settings, as given."""
    folder: Path
    """The run folder."""
    config: Config
    """The configuration, as the login node sees it."""
    evaluators: int = 0
    """Ranks that evaluate while the others train; 0: the job is no pipeline."""

    @property
    def without_effect(self) -> str | None:
        """What was set for a pipeline that the job is not; None: nothing."""
        if self.evaluators or not any(w.startswith(f"{_SETTING}=") for w in self.words):
            return None
        count = self.config.pipeline.evaluators
        if not count:
            return None
        return (
            f"{_SETTING}={count} has no effect on training by itself: {EVALUATORS} {count} behind "
            "the template starts the pipeline"
        )


def read_job_arguments(
    words: Sequence[str], run_name: str, *, will_be_there: bool = False
) -> JobArguments:
    """What the words that a template passes on ask for.

    ``--config`` of the template comes first, one of the user's after it counts. A run that is
    carried on (``--resume FOLDER``) keeps its own configuration: the template's is left out.

    Args:
        words: the template's, then the user's.
        run_name: of a new run whose ``name`` is ``auto``.
        will_be_there: a run to be carried on may not be there yet; the configuration is then the
            template's.

    Raises:
        UserError: a bad setting, or no run to carry on.
    """
    swapped, evaluators, rest = program_of(words)
    given = parse_train_arguments(rest)
    if given.run is not None and given.resume:
        raise UserError(f"--run {given.run} and --resume both name a run; give one of them")
    resumed = _resumed(given)
    there = resumed is not None and os.path.isfile(resumed / "config.yaml")
    if resumed is not None and not there and not will_be_there:
        raise UserError(f"--resume: {no_run_words(resumed)}")
    file = given.config
    configs = [word for word in rest if word == "--config" or word.startswith("--config=")]
    if there and len(configs) <= 1:
        file = None
    source = file if resumed is None or not there else file or resumed / "config.yaml"
    overrides = given.overrides
    if evaluators is not None:
        overrides = (*overrides, f"{_SETTING}={evaluators}")
    config = override(load_config(source), overrides)
    asked = [word for word in given.overrides if word.startswith(f"{_SETTING}=")]
    if evaluators is not None and asked and override(config, asked) != config:
        raise UserError(
            f"{EVALUATORS} {evaluators} and {asked[-1]} contradict each other; give {EVALUATORS} "
            "alone"
        )
    folder = resumed or given.run
    if folder is None:
        folder = Path(config.output) / (run_name if config.name == "auto" else config.name)
    own = () if file is None else ("--config", str(file))
    module = swapped or (PIPELINE if evaluators else TRAIN)
    return JobArguments(module, (*own, *overrides), folder, config, evaluators or 0)


def program_of(words: Sequence[str]) -> tuple[str | None, int | None, list[str]]:
    """What a job runs in training's place, its evaluators, and the words of training.

    Returns:
        A program of :data:`INSTEAD`, or None; N of :data:`EVALUATORS`, or None where it is not
        given; all other words.

    Raises:
        UserError: N is missing, or no whole number.
    """
    instead: str | None = None
    evaluators: int | None = None
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, sign, value = word.partition("=")
        if word in INSTEAD:
            instead = INSTEAD[word]
        elif name == EVALUATORS:
            if not sign:
                value = left.pop(0) if left else ""
            if not re.fullmatch(r"\d{1,6}", value, re.ASCII):
                said = f" {value}" if value else ""
                raise UserError(
                    f"{EVALUATORS}{said}: a whole number ≥ 0 must follow, the ranks that evaluate "
                    f"while the others train: {EVALUATORS} 8"
                )
            evaluators = int(value)
        else:
            rest.append(word)
    return instead, evaluators, rest


def needs_mpi(launcher: str, evaluators: int) -> str | None:
    """Why a site's launcher can't start a job with evaluators; None: it can."""
    if launcher != "horovodrun" or not evaluators:
        return None
    return (
        f"{EVALUATORS} {evaluators}: the pipeline is an MPI program, which "
        "SITE_LAUNCHER=horovodrun does not start; set SITE_LAUNCHER=auto, srun or mpirun"
    )


def _resumed(given: TrainArguments) -> Path | None:
    if not given.resume:
        return None
    if given.run_folder is None:
        raise UserError(
            "--resume in a batch job needs the run's folder, --resume runs/NAME: by the time the "
            "job starts, another run may be the newest"
        )
    return given.run_folder


def rank_words(arguments: JobArguments) -> list[str]:
    """The words after ``python``."""
    if arguments.module == INSTEAD["--placement"]:
        return ["-m", arguments.module]
    return ["-m", arguments.module, "--run", str(arguments.folder), *arguments.words]
