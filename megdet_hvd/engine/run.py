"""A whole training run, from configuration to final numbers."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megdet_hvd.bn import name_layers
from megdet_hvd.checkpoint.file import load_checkpoint, save_checkpoint
from megdet_hvd.checkpoint.naming import checkpoint_name
from megdet_hvd.checkpoint.retention import mark_best, prune_checkpoints
from megdet_hvd.comm.agree import together
from megdet_hvd.comm.exchange import barrier, broadcast_object
from megdet_hvd.comm.world import World
from megdet_hvd.config.derive import Derived, derive
from megdet_hvd.config.explain import explain
from megdet_hvd.config.load import to_yaml
from megdet_hvd.config.schema import Config
from megdet_hvd.data.factory import DataSets, open_datasets
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.engine.device import prepare_device
from megdet_hvd.engine.log import LOGGER, log_to_file
from megdet_hvd.engine.loop import Step, train_steps
from megdet_hvd.engine.metrics import Metrics
from megdet_hvd.engine.norms import describe_norm, detector_norm, shares_statistics_with_all
from megdet_hvd.engine.optimizer import build_optimizer
from megdet_hvd.engine.periods import due_by_epochs, due_by_iterations
from megdet_hvd.engine.pictures import RunPictures
from megdet_hvd.engine.progress import Progress
from megdet_hvd.engine.run_folder import (
    RunFolder,
    check_writable,
    create_run_folder,
    forget_after,
)
from megdet_hvd.engine.state import capture_state, restore_state
from megdet_hvd.engine.validation import Validation
from megdet_hvd.model.build import build_detector
from megdet_hvd.model.initialise import init_from


@dataclass
class Run:
    """Everything a run works with; made by :func:`prepare_run`."""

    config: Config
    world: World
    folder: RunFolder
    device: torch.device
    data: DataSets
    derived: Derived
    detector: nn.Module
    optimizer: Any
    scaler: Any
    shared_statistics: bool
    iteration: int = 0
    """Optimizer steps done."""
    ap: float | None = None
    """Newest mmAP on the validation pictures."""
    best_ap: float | None = None
    """Highest so far."""

    @property
    def epoch(self) -> float:
        """Passes over the training pictures so far."""
        return self.iteration * self.config.global_batch / len(self.data.train)


def prepare_run(config: Config, world: World, path: Path, *, resume: bool) -> Run:
    """Open the data, build the detector and the run folder. Every process calls it together.

    ``path`` is the run folder; with ``resume``, its latest checkpoint is taken up.

    Raises:
        UserError: on all ranks alike; nothing has been trained.
    """
    with together(world, "device"):
        device = prepare_device(config, world)
    with together(world, "data"):
        data = open_datasets(
            config.data,
            is_main=world.local_rank == 0,
            wait=lambda: barrier(world, "data"),
        )
    with together(world, "derive"):
        sizes = [len(ranks) for ranks in world.machines]
        derived = derive(config, len(data.train), world.size, sizes)
    state: dict[str, Any] | None = None
    folder = RunFolder(path)
    with together(world, "model"):
        detector = build_detector(
            config.model,
            len(data.train.categories),
            detector_norm(config),
            seed=config.seed,
            pretrained=not resume,
        )
        weights = None if resume else config.model.init_from
        new_layers = [] if weights is None else init_from(detector, weights)
    with together(world, "folder"):
        if resume and world.is_main:
            check_writable(folder)
            state = load_checkpoint(path)
        elif world.is_main:
            create_run_folder(path, to_yaml(config))
    name_layers(detector)
    detector.to(device)
    optimizer = build_optimizer(detector, config)
    scaled = config.precision == "float16" and device.type == "cuda"
    scaler = torch.amp.GradScaler("cuda") if scaled else None
    run = Run(
        config,
        world,
        folder,
        device,
        data,
        derived,
        detector,
        optimizer,
        scaler,
        shares_statistics_with_all(config, world),
    )
    if resume:
        _take_up(run, broadcast_object(state, world, "checkpoint"))
    else:
        _same_weights(run)
    if world.is_main:
        log_to_file(folder.log)
    for layer in new_layers:
        LOGGER.info(f"newly initialised, as model.init_from does not fit it: {layer}")
    return run


def _same_weights(run: Run) -> None:
    """Every process starts from rank 0's weights, bit for bit."""
    if run.world.size > 1:
        import horovod.torch as hvd

        hvd.broadcast_parameters(run.detector.state_dict(), root_rank=0)


def _take_up(run: Run, state: dict[str, Any]) -> None:
    with together(run.world, "resume"):
        run.iteration = restore_state(
            state, run.detector, run.optimizer, run.scaler, run.config, run.data.train, run.world
        )
    run.ap, run.best_ap = state["ap"], state["best_ap"]
    if run.world.is_main:
        forget_after(run.folder.metrics, run.iteration)


def announce(run: Run) -> None:
    """The first lines of the log: who takes part, on what, and the batch's arithmetic."""
    world, config, derived = run.world, run.config, run.derived
    machines, threads = len(world.machines), torch.get_num_threads()
    LOGGER.info(
        f"{world.size} {'process' if world.size == 1 else 'processes'} on "
        f"{machines} {'machine' if machines == 1 else 'machines'}, started by {world.launcher}; "
        f"device {run.device.type}, {threads} {'thread' if threads == 1 else 'threads'} a process"
    )
    LOGGER.info(f"run folder {run.folder.path}")
    for name, index in (("training", run.data.train), ("validation", run.data.val)):
        for line in index.summary() if index is not None else ["none"]:
            LOGGER.info(f"{name}: {line}")
    for line in explain(config, derived):
        LOGGER.info(line)
    images = derived.images_per_process_per_pass
    LOGGER.info(describe_norm(run.detector, config, world, images))
    if run.iteration:
        LOGGER.info(f"carrying on after iteration {run.iteration} (epoch {run.epoch:.2f})")


def execute(run: Run) -> Run:
    """Train to the end, evaluating and saving on the way. Every process calls it together.

    Raises:
        RunError, UserError: on all ranks alike; the latest checkpoint stays.
    """
    config, world, folder = run.config, run.world, run.folder
    end = run.derived.end_iteration
    metrics = None
    if world.is_main:
        events = folder.tensorboard if config.log.tensorboard else None
        metrics = Metrics(folder.metrics, events, run.iteration)
    progress = Progress(config, world.launcher, run.iteration, end, world.is_main)
    validation = _validation(run, metrics)
    pictures = RunPictures(folder, run.data, world)
    loader = TrainLoader(
        run.data.train,
        config.data,
        seed=config.seed,
        global_batch=config.global_batch,
        accumulation=config.learning.accumulation,
        rank=world.rank,
        world_size=world.size,
        start_iteration=run.iteration,
        end_iteration=end,
        local_size=world.local_size,
    )
    skipped = 0
    with closing(progress):
        if validation is not None and config.evaluation.untrained and run.iteration == 0:
            _evaluate(run, validation, pictures)
        steps = train_steps(
            run.detector,
            run.optimizer,
            run.scaler,
            iter(loader),
            config,
            run.derived,
            world,
            run.device,
            run.iteration,
        )
        for step in steps:
            run.iteration = step.iteration
            skipped += step.status.skipped
            _count(run, step, progress, metrics, skipped)
            began = time.monotonic()
            if validation is not None and _evaluation_due(run, end):
                _evaluate(run, validation, pictures)
            if _checkpoint_due(run, end):
                _save(run)
            progress.outside(time.monotonic() - began)
    if metrics is not None:
        metrics.close()
    return run


def _validation(run: Run, metrics: Metrics | None) -> Validation | None:
    if run.data.val is None:
        return None
    return Validation(
        run.data.val, run.config, run.world, run.folder, metrics, run.shared_statistics
    )


def _count(run: Run, step: Step, progress: Progress, metrics: Metrics | None, skipped: int) -> None:
    status = step.status
    line = progress.step(step.iteration, status.losses, status.images, step.rate, step.wait_s)
    if line is not None and metrics is not None:
        seen = step.iteration * run.config.global_batch
        metrics.write(
            "train", step.iteration, epoch=run.epoch, images_seen=seen, skipped=skipped, **line
        )
    if status.skipped and run.world.is_main:
        LOGGER.warning(
            f"iteration {step.iteration}: {status.skipped} unreadable pictures skipped, "
            f"{skipped} so far"
        )


def _evaluation_due(run: Run, end: int) -> bool:
    every = run.config.evaluation.every_epochs
    size, batch = len(run.data.train), run.config.global_batch
    return run.iteration == end or due_by_epochs(run.iteration, every, size, batch)


def _checkpoint_due(run: Run, end: int) -> bool:
    settings = run.config.checkpoint
    size, batch = len(run.data.train), run.config.global_batch
    return (
        run.iteration == end
        or due_by_epochs(run.iteration, settings.every_epochs, size, batch)
        or due_by_iterations(run.iteration, settings.every_iterations)
    )


def _evaluate(run: Run, validation: Validation, pictures: RunPictures) -> None:
    found = validation.run(run.detector, run.iteration, run.epoch)
    run.ap = found.result.ap
    pictures.draw(found)


def _save(run: Run) -> None:
    best = run.ap is not None and (run.best_ap is None or run.ap > run.best_ap)
    if best:
        run.best_ap = run.ap
    state = capture_state(
        run.detector,
        run.optimizer,
        run.scaler,
        run.config,
        run.data.train,
        run.world,
        iteration=run.iteration,
        ap=run.ap,
        best_ap=run.best_ap,
        shared_statistics=run.shared_statistics,
    )
    with together(run.world, "checkpoint"):
        if run.world.is_main:
            path = run.folder.checkpoints / checkpoint_name(run.iteration)
            save_checkpoint(path, state)
            if best:
                mark_best(path)
            prune_checkpoints(run.folder.checkpoints, run.config.checkpoint.keep)
