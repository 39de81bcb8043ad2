"""What would be trained: the configuration, its sums, its data; needs pydantic and yaml."""

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from megdet_hvd.checkpoint.naming import latest_checkpoint
from megdet_hvd.cli import parse_train_arguments
from megdet_hvd.config.derive import derive
from megdet_hvd.config.explain import explain
from megdet_hvd.config.load import load_config
from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import Config
from megdet_hvd.data.fetch.catalogue import backbone_download
from megdet_hvd.data.fetch.run import torch_hub_folder
from megdet_hvd.engine.resumption import resumption_of
from megdet_hvd.errors import UserError
from megdet_hvd.slurm_job import record
from megdet_hvd.slurm_job.job_arguments import INSTEAD, JobArguments, read_job_arguments
from megdet_hvd.submit.chain import jobs_waited_for, will_be_there
from megdet_hvd.submit.job import JOB_ID, JobRequest
from megdet_hvd.submit.queue import ask_queue
from megdet_hvd.submit.report import CheckReport
from megdet_hvd.submit.writing import check_folder, check_names

_CHUNK = 1 << 24


def check_training(
    report: CheckReport, job: JobRequest, nodes: int, tasks: int, *, data_is_packed: bool
) -> None:
    """The configuration, on ``nodes`` of ``tasks`` processes each; its data, unless packed.

    Paths in it are looked at from the current folder, which must be the project's.
    """
    try:
        wish = _wish(report, job)
    except UserError as error:
        report.problem(error)
        return
    if wish is None:
        return
    folder = wish.folder.absolute()
    report.facts.append(f"run folder: {folder}")
    if not data_is_packed:
        check_data(report, wish.config)
    if not check_names(report, Path(str(folder).replace(JOB_ID, "0" * 10)), "run folder"):
        return
    try:
        check_folder(folder, "run folder", made=True)
    except UserError as error:
        report.problem(f"{error}; another place: output=FOLDER")
    if latest_checkpoint(wish.folder / "checkpoints") is None:
        check_weights(report, wish.config)
    check_company(report, wish.folder, waited_for=job.all_options.get("dependency", ""))
    machines = [list(range(n * tasks, (n + 1) * tasks)) for n in range(nodes)]
    config = wish.config
    try:
        config = _refitted(report, wish, machines)
        report.facts += sums(config, nodes, tasks, images_per_epoch(config))
    except UserError as error:
        report.problem(error)


def _wish(report: CheckReport, job: JobRequest) -> JobArguments | None:
    """What the job will read out of its words; an unknown option is an error like others.

    None: the run that it names will not be there, as the report says.
    """
    said = io.StringIO()
    name = f"{job.name.replace('/', '_')}-{JOB_ID}"
    try:
        with redirect_stderr(said), redirect_stdout(said):
            wish = read_job_arguments(job.train_words, name, will_be_there=True)
            own = os.path.isfile(wish.folder / "config.yaml")
            if own or wish.folder != parse_train_arguments(_own(job.train_words)).run_folder:
                return wish
            return wish if will_be_there(report, job, wish.folder) else None
    except SystemExit:
        last = said.getvalue().strip().splitlines()[-1:]
        message = last[0].partition(" error: ")[2] if last else ""
    raise UserError(
        f"behind the template: {message or '--help starts no training'}; there stand key=value, "
        "--config, --resume, --placement and --preflight; options of sbatch stand before it"
    )


def _own(words: Sequence[str]) -> list[str]:
    """Without what starts another program in training's place."""
    return [word for word in words if word not in INSTEAD]


def _refitted(report: CheckReport, wish: JobArguments, machines: Sequence[Sequence[int]]) -> Config:
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
    found = resumption.elastic_resume(tuple(tuple(ranks) for ranks in machines))
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


def check_data(report: CheckReport, config: Config) -> None:
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


def check_company(report: CheckReport, folder: Path, waited_for: str = "") -> None:
    """Whether another job works in the run folder: one that starts meanwhile ends at once.

    ``waited_for``: the job's ``--dependency``.
    """
    other = record.last_job(record.read(folder))
    if str(other) in jobs_waited_for(waited_for):
        return
    queued = None if other is None else ask_queue(str(other))[0]
    if queued is not None:
        report.notes.append(
            f"job {other} works in {folder}, and is {queued.state.lower()}: unless it has ended by "
            f"then, this one will not start. scancel --batch --signal=USR2 {other} ends it with a "
            "checkpoint; --dependency=afterany waits for it"
        )


def check_weights(report: CheckReport, config: Config) -> None:
    """The weights that a new run begins with."""
    model = config.model
    for key, wanted in (
        ("backbone_weights", model.backbone_weights),
        ("init_from", model.init_from),
    ):
        if wanted is None:
            continue
        setting = f"model.{key}"
        name = wanted.rpartition("_Weights.")[2]  # ResNet50_Weights.IMAGENET1K_V1 is one, too
        if key == "backbone_weights" and not any(mark in name for mark in "/.~$"):
            _check_named(report, model.backbone, name)
            continue
        try:
            path = expand_path(wanted, setting)
        except UserError as error:
            report.problem(error)
            continue
        if not path.exists():
            report.problem(f"{setting}={wanted}: no such file: {path}")


def _check_named(report: CheckReport, backbone: str, wanted: str) -> None:
    """Weights of torchvision, which nodes without a way to the internet can't fetch."""
    try:
        file = torch_hub_folder() / backbone_download(backbone, wanted).name
    except KeyError:
        return  # torchvision may know more names; training says so
    if not file.is_file():
        report.notes.append(
            f"model.backbone_weights={wanted}: {file} is not there, and nodes without a way to the "
            f"internet can't fetch it: python -m megdet_hvd.data fetch backbone --name {backbone} "
            f"--weights {wanted}"
        )


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
