"""The run itself: training steps, with evaluation, checkpoints and pictures when they are due."""

import time
from collections.abc import Callable
from contextlib import closing

from megdet_hvd.checkpoint.file import save_checkpoint
from megdet_hvd.checkpoint.naming import checkpoint_name
from megdet_hvd.checkpoint.retention import mark_best, prune_checkpoints
from megdet_hvd.comm.agree import together
from megdet_hvd.comm.position import go_outside
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.engine.evaluations import Evaluations, InLine, evaluation_due
from megdet_hvd.engine.log import LOGGER
from megdet_hvd.engine.loop import Step, train_steps
from megdet_hvd.engine.metrics import Metrics
from megdet_hvd.engine.periods import due_by_epochs, due_by_iterations
from megdet_hvd.engine.pictures import RunPictures
from megdet_hvd.engine.prepare import Run
from megdet_hvd.engine.progress import Progress
from megdet_hvd.engine.state import capture_state
from megdet_hvd.engine.summary import summary

Measure = Callable[[Run, Metrics | None, RunPictures], Evaluations]
"""Makes a run's evaluations."""


def execute(run: Run, measure: Measure = InLine) -> Run:
    """Train to the end, evaluating and saving on the way. Every process calls it together.

    ``measure`` says who evaluates; metrics are None on ranks other than 0.

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
    pictures = RunPictures(folder, run.data, world)
    evaluations = None if run.data.val is None else measure(run, metrics, pictures)
    run.evaluations = evaluations
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
        cores=world.cores,
    )
    skipped = 0
    with closing(progress):
        if evaluations is not None:
            began = time.monotonic()
            evaluations.begin()
            if config.evaluation.untrained and run.iteration == 0:
                evaluations.measure()
                if evaluations.needs_checkpoint:
                    _save(run)
            progress.outside(time.monotonic() - began)
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
            go_outside("between steps")
            run.iteration = step.iteration
            skipped += step.status.skipped
            _count(run, step, progress, metrics, skipped)
            began = time.monotonic()
            measured = evaluations is not None and evaluation_due(run, run.iteration, end)
            if evaluations is not None and measured:
                evaluations.measure()
            elif due_by_epochs(run.iteration, 1, len(run.data.train), config.global_batch):
                pictures.draw_curves()
            needed = evaluations is not None and evaluations.needs_checkpoint
            if _checkpoint_due(run, end) or (measured and needed):
                _save(run)
            if evaluations is not None:
                evaluations.look()
            progress.outside(time.monotonic() - began)
        if evaluations is not None:
            evaluations.finish()
    go_outside("finishing the run")
    if metrics is not None:
        metrics.close()
        for words in summary(folder, run.iteration):
            LOGGER.info(words)
    return run


def _count(run: Run, step: Step, progress: Progress, metrics: Metrics | None, skipped: int) -> None:
    status = step.status
    line = progress.step(step.iteration, status, step.rate, step.wait_s)
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


def _checkpoint_due(run: Run, end: int) -> bool:
    settings = run.config.checkpoint
    size, batch = len(run.data.train), run.config.global_batch
    return (
        run.iteration == end
        or due_by_epochs(run.iteration, settings.every_epochs, size, batch)
        or due_by_iterations(run.iteration, settings.every_iterations)
    )


def _save(run: Run) -> None:
    go_outside("checkpoint")
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
            protected = () if run.evaluations is None else run.evaluations.protected
            prune_checkpoints(run.folder.checkpoints, run.config.checkpoint.keep, protected)
    if run.evaluations is not None:
        run.evaluations.saved(run.folder.checkpoints / checkpoint_name(run.iteration))
