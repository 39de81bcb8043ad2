"""What would be trained: the configuration, its sums, its data; needs pydantic and yaml."""

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

from megdet_hvd.checkpoint.naming import latest_checkpoint
from megdet_hvd.cli import parse_train_arguments
from megdet_hvd.cluster.job_array import OPTION, take_arrays
from megdet_hvd.config.derive import derive
from megdet_hvd.config.explain import explain
from megdet_hvd.config.load import load_config
from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.pipeline_roles import describe_roles, evaluators_of, share_roles
from megdet_hvd.config.schema import Config
from megdet_hvd.config.sections.data import AnnotationSource
from megdet_hvd.data.fetch.catalogue import backbone_download
from megdet_hvd.data.fetch.run import torch_hub_folder
from megdet_hvd.engine.resumption import resumption_of
from megdet_hvd.errors import UserError
from megdet_hvd.slurm_job import record
from megdet_hvd.slurm_job.job_arguments import (
    EVALUATORS,
    JobArguments,
    needs_mpi,
    program_of,
    read_job_arguments,
)
from megdet_hvd.submit.chain import jobs_waited_for, will_be_there
from megdet_hvd.submit.job import JOB_ID, JobRequest
from megdet_hvd.submit.queue import ask_queue
from megdet_hvd.submit.report import CheckReport
from megdet_hvd.submit.writing import check_folder, check_names
from megdet_hvd.wording import counted

_CHUNK = 1 << 24


def check_training(
    report: CheckReport,
    job: JobRequest,
    nodes: int,
    tasks: int,
    *,
    data_is_packed: bool,
    launcher: str = "auto",
) -> None:
    """The configuration, on ``nodes`` of ``tasks`` processes each; its data, unless packed.

    Paths in it are looked at from the current folder, which must be the project's.
    """
    try:
        arguments = _arguments(report, job)
    except UserError as error:
        report.problem(error)
        return
    if arguments is None:
        return
    folder = arguments.folder.absolute()
    report.facts.append(f"run folder: {folder}")
    if not data_is_packed:
        check_data(report, arguments.config)
    if not check_names(report, Path(str(folder).replace(JOB_ID, "0" * 10)), "run folder"):
        return
    try:
        check_folder(folder, "run folder", made=True)
    except UserError as error:
        report.problem(f"{error}; another place: output=FOLDER")
    if latest_checkpoint(arguments.folder / "checkpoints") is None:
        check_weights(report, arguments.config)
    check_company(report, arguments.folder, waited_for=job.all_options.get("dependency", ""))
    if (problem := needs_mpi(launcher, arguments.evaluators)) is not None:
        report.problem(problem)
    if arguments.without_effect is not None:
        report.notes.append(arguments.without_effect)
    try:
        machines = trainers_of(report, arguments, nodes, tasks)
    except UserError as error:
        report.problem(error)
        return
    config = arguments.config
    try:
        config = _refitted(report, arguments, machines)
        report.facts += sums(config, [len(ranks) for ranks in machines], images_per_epoch(config))
    except UserError as error:
        report.problem(f"{error}{_better_nodes(config, arguments.evaluators, nodes, tasks)}")


def trainers_of(
    report: CheckReport, arguments: JobArguments, nodes: int, tasks: int
) -> list[tuple[int, ...]]:
    """The training ranks of each machine that has any; who evaluates is a fact of the report.

    Raises:
        UserError: nobody is left to train, or there is nothing to evaluate on.
    """
    machines = [tuple(range(n * tasks, (n + 1) * tasks)) for n in range(nodes)]
    if not arguments.evaluators:
        return machines
    if arguments.evaluators >= nodes * tasks:
        raise UserError(
            f"{EVALUATORS} {arguments.evaluators} of {nodes} × {tasks} = {nodes * tasks} processes "
            "leave none to train: more --nodes before the template, or fewer evaluators"
        )
    roles = share_roles(nodes * tasks, evaluators_of(arguments.config))
    report.facts.append(describe_roles(roles))
    return roles.trainers_by_machine(machines)


def _better_nodes(config: Config, evaluators: int, nodes: int, tasks: int) -> str:
    """What to ask for instead, where a batch does not divide over what evaluators leave over."""
    if not evaluators or not _divides(config, nodes, tasks, 0):
        return ""
    whole = -(-evaluators // tasks) * tasks  # evaluators that fill their nodes
    more = whole // tasks
    for wanted, extra in ((evaluators, more), (whole, more)):
        if _divides(config, nodes + extra, tasks, wanted):
            given = "" if wanted == evaluators else f" and {EVALUATORS} {wanted}"
            trainers = (nodes + extra) * tasks - wanted
            return (
                f". --nodes={nodes + extra} before the template{given} gives {trainers} trainers "
                f"and {wanted} evaluators"
            )
    return ""


def _divides(config: Config, nodes: int, tasks: int, evaluators: int) -> bool:
    """Whether the batch divides over the trainers of so many nodes."""
    machines = [tuple(range(n * tasks, (n + 1) * tasks)) for n in range(nodes)]
    trainers = share_roles(nodes * tasks, evaluators).trainers_by_machine(machines)
    try:
        sums(config, [len(ranks) for ranks in trainers], None)
    except UserError:
        return False
    return True


def problems_of_values(job: JobRequest) -> list[str]:
    """What is wrong with single values of an array, each once."""
    if job.array is None:
        return []
    _, words = take_arrays(job.train_words)
    found = []
    for key, values in job.array.axes:
        for value in values:
            single = replace(job, train_words=(*words, f"{key}={value}"))
            try:
                _arguments(CheckReport(), single)
            except UserError as error:
                found.append(f"{OPTION} {key}=…: {error}")
    return list(dict.fromkeys(found))


def _arguments(report: CheckReport, job: JobRequest) -> JobArguments | None:
    """What the job will read out of its words; an unknown option is an error like others.

    None: the run that it names will not be there, as the report says.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            arguments = read_job_arguments(job.train_words, job.run_name, will_be_there=True)
            own = os.path.isfile(arguments.folder / "config.yaml")
            if own or arguments.folder != parse_train_arguments(_own(job.train_words)).run_folder:
                return arguments
            return arguments if will_be_there(report, job, arguments.folder) else None
    except SystemExit:
        last = said.getvalue().strip().splitlines()[-1:]
        message = last[0].partition(" error: ")[2] if last else ""
    raise UserError(
        f"behind the template: {message or '--help starts no training'}; there stand key=value, "
        "--config, --resume, --evaluators, --placement and --preflight; options of sbatch "
        "stand before it"
    )


def _own(words: Sequence[str]) -> list[str]:
    """Those that are training's own."""
    return program_of(words)[2]


def _refitted(
    report: CheckReport, arguments: JobArguments, machines: Sequence[Sequence[int]]
) -> Config:
    """The configuration as a resume on these processes changes it; as it is for a new run."""
    checkpoint = latest_checkpoint(arguments.folder / "checkpoints")
    if checkpoint is None:
        if (arguments.folder / "config.yaml").is_file():
            report.facts.append("the run has no checkpoint yet and starts anew")
        return arguments.config
    # As the ranks see it, whose words are those of every requeue (train --run).
    own = arguments.folder / "config.yaml"
    had = load_config(own) if own.is_file() else arguments.config
    resumption = resumption_of(arguments.folder, arguments.config, had, ())
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


def sums(config: Config, machine_sizes: Sequence[int], images: int | None) -> list[str]:
    """The lines that the log will begin with; without ``images``, those that don't need it.

    Args:
        config: the run's.
        machine_sizes: training processes of each machine.
        images: pictures of an epoch; None: not known.

    Raises:
        UserError: the batch does not divide over the processes, or the BN size can't be made.
    """
    nodes, tasks = len(machine_sizes), machine_sizes[0]
    derived = derive(config, images or config.global_batch, sum(machine_sizes), machine_sizes)
    each = derived.images_per_process_per_pass
    head = f"{counted(nodes, 'node')} × {counted(tasks, 'process')} × {counted(each, 'image')}"
    if machine_sizes[-1] != tasks:
        head += f", {machine_sizes[-1]} on the last node"
    lines = explain(config, derived)
    if images is None:
        kept = ("global batch", "learning rate", "BN statistics", "no normalisation")
        lines = [line for line in lines if line.startswith(kept)]
        lines.append("warm-up and iterations follow from the number of pictures, not known here")
    return [head, *lines]


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
    records = record.read(folder)
    other = record.last_job(records)
    if str(other) in jobs_waited_for(waited_for):
        return
    named = "" if other is None else record.slurm_id(records[-1])
    queued = None if other is None else ask_queue(named)[0]
    if queued is not None:
        report.notes.append(
            f"job {named} works in {folder}, and is {queued.state.lower()}: unless it has ended by "
            f"then, this one will not start. scancel --batch --signal=USR2 {named} ends it with a "
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
    if not config.data.keep_empty or config.data.kind == "own":
        return None
    return pictures_of(config.data.train)


def pictures_of(sources: Sequence[AnnotationSource]) -> int | None:
    """All of COCO files, with boxes or without; None: a file isn't there, or there are none."""
    try:
        files = [expand_path(source.annotations) for source in sources]
        return sum(map(_count_pictures, files)) or None
    except (OSError, UserError):
        return None


def _count_pictures(file: Path) -> int:
    there = file.stat()
    return _counted_once(file, there.st_size, there.st_mtime_ns)


@cache
def _counted_once(file: Path, size: int, mtime_ns: int) -> int:
    """For all members of an array."""
    del size, mtime_ns
    mark, count, rest = b'"file_name"', 0, b""
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            text = rest + chunk
            count += text.count(mark)
            rest = text[-len(mark) + 1 :]
    return count
