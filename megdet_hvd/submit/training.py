"""What would be trained: the configuration, its sums, its data; needs pydantic and yaml."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from megdet_hvd.checkpoint.naming import latest_checkpoint
from megdet_hvd.config.derive import derive
from megdet_hvd.config.explain import explain
from megdet_hvd.config.load import load_config
from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import Config
from megdet_hvd.engine.resumption import resumption_of
from megdet_hvd.errors import UserError
from megdet_hvd.slurm_job.words import Wish, read_wish
from megdet_hvd.submit.job import JOB_ID, Job
from megdet_hvd.submit.report import Report

_CHUNK = 1 << 24


def check_training(
    report: Report, job: Job, nodes: int, tasks: int, *, data_is_packed: bool
) -> None:
    """The configuration, on ``nodes`` of ``tasks`` processes each; its data, unless packed.

    Paths in it are looked at from the current folder, which must be the project's.
    """
    try:
        wish = _wish(job)
    except UserError as error:
        report.problem(error)
        return
    report.facts.append(f"run folder: {wish.folder.absolute()}")
    if not data_is_packed:
        check_data(report, wish.config)
    machines = [list(range(n * tasks, (n + 1) * tasks)) for n in range(nodes)]
    config = wish.config
    try:
        config = _refitted(report, wish, machines)
        report.facts += sums(config, nodes, tasks, images_per_epoch(config))
    except UserError as error:
        report.problem(error)


def _wish(job: Job) -> Wish:
    """What the job will read out of its words; an unknown option is an error like others."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            return read_wish(job.train_words, f"{job.name}-{JOB_ID}")
    except SystemExit:
        last = said.getvalue().strip().splitlines()[-1:]
        message = last[0].partition(" error: ")[2] if last else ""
    raise UserError(
        f"behind the template: {message or '--help starts no training'}; there stand key=value, "
        "--config, --resume, --placement and --preflight; options of sbatch stand before it"
    )


def _refitted(report: Report, wish: Wish, machines: Sequence[Sequence[int]]) -> Config:
    """The configuration as a resume on these processes changes it; as it is for a new run."""
    checkpoint = latest_checkpoint(wish.folder / "checkpoints")
    if checkpoint is None:
        if (wish.folder / "config.yaml").is_file():
            report.facts.append("the run has no checkpoint yet and starts anew")
        return wish.config
    # As the ranks see it, whose words are those of every requeue (train --run).
    own = wish.folder / "config.yaml"
    had = load_config(own) if own.is_file() else wish.config
    resumption = resumption_of(wish.folder, wish.config, had, ())
    report.facts.append(f"carries on from {checkpoint}")
    if resumption.before is None:
        report.notes.append(
            f"{checkpoint} can't be read, so how the run would go on was not checked; the job sets "
            "a damaged one aside and takes the one before"
        )
    found = resumption.refit(tuple(tuple(ranks) for ranks in machines))
    report.facts += found.lines
    if found.warning:
        report.notes.append(found.warning)
    return found.config


def sums(config: Config, nodes: int, tasks: int, images: int | None) -> list[str]:
    """The lines that the log will begin with; without ``images``, those that don't need it.

    Raises:
        UserError: the batch does not divide over the processes, or the BN size can't be made.
    """
    world = nodes * tasks
    derived = derive(config, images or config.global_batch, world, [tasks] * nodes)
    each = derived.images_per_process_per_pass
    head = f"{_count(nodes, 'node')} × {_count(tasks, 'process')} × {_count(each, 'image')}"
    lines = explain(config, derived)
    if images is None:
        kept = ("global batch", "learning rate", "BN statistics", "no normalisation")
        lines = [line for line in lines if line.startswith(kept)]
        lines.append("warm-up and iterations follow from the number of pictures, not known here")
    return [head, *lines]


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def check_data(report: Report, config: Config) -> None:
    """The files that the configuration names."""
    if config.data.kind != "coco":
        return
    for key, sources in (("data.train", config.data.train), ("data.val", config.data.val)):
        for position, source in enumerate(sources):
            for name, text, is_there, kind in (
                ("annotations", source.annotations, Path.is_file, "file"),
                ("images", source.images, Path.is_dir, "folder"),
            ):
                where = f"{key}.{position}.{name}"
                try:
                    path = expand_path(text, where)
                except UserError as error:
                    if "COCO_ROOT" in str(error):
                        report.problem(
                            "the data's folder is not known: set SITE_DATA_ROOT in slurm/site.sh, "
                            "or export COCO_ROOT"
                        )
                    else:
                        report.problem(error)
                    continue
                if not is_there(path):
                    report.problem(f"{where}={text}: no such {kind}: {path}")


def images_per_epoch(config: Config) -> int | None:
    """Pictures of an epoch, counted without reading the annotations; None: not known here.

    Each picture of a COCO file has one ``file_name``. Those without boxes count, too, so where
    they are left out (``data.keep_empty=false``) only training itself knows.
    """
    if config.data.kind == "scenes":
        return config.data.scenes.train_images
    if not config.data.keep_empty:
        return None
    try:
        files = [expand_path(source.annotations) for source in config.data.train]
        return sum(map(_count_pictures, files)) or None
    except (OSError, UserError):
        return None


def _count_pictures(file: Path) -> int:
    mark, count, rest = b'"file_name"', 0, b""
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            text = rest + chunk
            count += text.count(mark)
            rest = text[-len(mark) + 1 :]
    return count
