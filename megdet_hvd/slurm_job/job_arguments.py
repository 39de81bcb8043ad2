"""What a template and its user ask for, and what the ranks are started with. Pure."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.checkpoint.naming import no_run_words
from megdet_hvd.cli import TrainArguments, parse_train_arguments
from megdet_hvd.config.load import load_config, override
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

TRAIN = "megdet_hvd.train"
INSTEAD = {"--preflight": "megdet_hvd.preflight", "--placement": "megdet_hvd.placement"}
"""Words that run another program in training's place, in the same job and the same way."""


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


def read_job_arguments(
    words: Sequence[str], run_name: str, *, will_be_there: bool = False
) -> JobArguments:
    """The wish behind the words that a template passes on.

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
    swapped = [INSTEAD[word] for word in words if word in INSTEAD]
    rest = [word for word in words if word not in INSTEAD]
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
    config = override(load_config(source), given.overrides)
    folder = resumed or given.run
    if folder is None:
        folder = Path(config.output) / (run_name if config.name == "auto" else config.name)
    own = () if file is None else ("--config", str(file))
    module = swapped[-1] if swapped else TRAIN
    return JobArguments(module, (*own, *given.overrides), folder, config)


def _resumed(given: TrainArguments) -> Path | None:
    if not given.resume:
        return None
    if given.run_folder is None:
        raise UserError(
            "--resume in a batch job needs the run's folder, --resume runs/NAME: by the time the "
            "job starts, another run may be the newest"
        )
    return given.run_folder


def rank_words(wish: JobArguments) -> list[str]:
    """The words after ``python``."""
    if wish.module == INSTEAD["--placement"]:
        return ["-m", wish.module]
    return ["-m", wish.module, "--run", str(wish.folder), *wish.words]
