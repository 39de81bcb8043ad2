"""The run itself: training steps, with evaluation, checkpoints and pictures when they are due."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from megdet_hvd.checkpoint.naming import checkpoint_name
from megdet_hvd.cluster.threads import cores_for_loading
from megdet_hvd.comm.position import go_outside
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.engine.dark import DarkPictures
from megdet_hvd.engine.evaluate_in_line import InLine, evaluation_due
from megdet_hvd.engine.evaluations import Evaluations
from megdet_hvd.engine.periods import due_by_epochs
from megdet_hvd.engine.prepare import Run
from megdet_hvd.engine.progress import TrainingProgress
from megdet_hvd.engine.run_folder.best_effort import BestEffort
from megdet_hvd.engine.run_folder.loggers import MetricsLoggers
from megdet_hvd.engine.run_folder.metrics import Metrics
from megdet_hvd.engine.run_folder.pictures import RunPictures
from megdet_hvd.engine.run_folder.summary import summary
from megdet_hvd.engine.saving import catch_up, checkpoint_due, save, save_best
from megdet_hvd.engine.step.loop import Step, train_steps
from megdet_hvd.engine.step.optimizer import check_savable
from megdet_hvd.engine.step.time_split import time_split
from megdet_hvd.errors import UserError
from megdet_hvd.job import outcome_notes, stopping
from megdet_hvd.job.agree import together
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.log import LOGGER
from megdet_hvd.wording import counted

Measure = Callable[[Run, Metrics | None, RunPictures], Evaluations]
"""Makes a run's evaluations."""


def execute(run: Run, measure: Measure = InLine) -> Run:
    """Train to the end, evaluating and saving on the way. Every process calls it together.

    ``measure`` says who evaluates; metrics are None on ranks other than 0. Where a rank wants the
    job to stop (:mod:`megdet_hvd.job.stopping`), all end after the same step, with a checkpoint;
    ``stopped`` of the run then says why.

    Raises:
        RunError, UserError: on all ranks alike; the latest checkpoint stays.
    """
    config, world, folder = run.config, run.world, run.folder
    end = run.derived.end_iteration
    outcome_notes.note(run_folder=folder.path, iteration=run.iteration)
    metrics = None
    loggers = _loggers(run)
    if world.is_main:
        events = folder.tensorboard if config.log.tensorboard else None
        metrics = Metrics(folder.metrics, events, run.iteration, run.still_ours, loggers)
    progress = TrainingProgress(config, world.launcher, run.iteration, end, world.is_main)
    pictures = RunPictures(folder, run.data, world)
    catch_up(run)
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
        cores=cores_for_loading(world.cores, on_gpu=run.device.type == "cuda"),
        limit_s=config.watchdog.seconds,
        device=run.device,
    )
    skipped = 0
    savable = False
    dark = DarkPictures()
    with closing(loggers), closing(progress), _at_stake(run):
        if evaluations is not None:
            began = time.monotonic()
            _before_steps(run, evaluations)
            progress.outside(time.monotonic() - began)
        for step in _steps(run, loader) if run.stopped is None else ():
            go_outside("between steps")
            run.still_ours()
            if run.own.optimizer is not None and not savable:  # now, not after hours
                with together(run.world, "optimizer state"):
                    check_savable(run.optimizer, config)
                savable = True
            run.iteration = step.iteration
            outcome_notes.note(iteration=run.iteration)
            skipped += step.status.skipped
            _count(run, step, progress, metrics, skipped)
            if world.is_main:
                dark.count(step.iteration, step.read, step.dark)
            began = time.monotonic()
            if step.status.stop:
                run.stopped = _agreed_reason(run)
            measured = evaluations is not None and evaluation_due(run, run.iteration, end)
            if evaluations is not None and measured:
                run.evaluation_due = True  # made up for after a stop
                if run.stopped is None:
                    evaluations.measure()
            elif due_by_epochs(run.iteration, 1, len(run.data.train), config.global_batch):
                pictures.draw_curves()
            if run.iteration == end and not run.evaluation_due:
                run.stopped = None  # there is nothing left to do
            if run.stopped is not None:
                break
            needed = evaluations is not None and evaluations.needs_checkpoint
            if checkpoint_due(run, run.iteration) or (measured and needed):
                save(run)
            elif measured:
                save_best(run)
            if evaluations is not None:
                evaluations.look()
            progress.outside(time.monotonic() - began)
        if run.stopped is not None:
            save(run, last=True)
        elif evaluations is not None:
            evaluations.finish()
        if evaluations is not None:
            evaluations.close()
    go_outside("finishing the run")
    if metrics is not None:
        metrics.close()
    if run.world.is_main and run.stopped is None:
        with BestEffort("the summary").writing():
            for words in summary(folder, run.iteration):
                LOGGER.info(words)
    return run


def _loggers(run: Run) -> MetricsLoggers:
    """Rank 0's, of the user's own; none elsewhere."""
    loggers = MetricsLoggers()
    if run.own.loggers:
        with together(run.world, "loggers"):
            if run.world.is_main:
                factories, path = run.own.loggers, run.folder.path
                try:
                    loggers = MetricsLoggers.opened(factories, path, run.config, run.iteration)
                except UserError:
                    if not run.own_checkpoints:  # no run has begun here: the name stays free
                        run.folder.config.unlink(missing_ok=True)
                    raise
    return loggers


@contextmanager
def _at_stake(run: Run) -> Iterator[None]:
    """Inside, whoever ends rank 0's process is told what that costs."""

    def lost() -> str:
        since = f"since {checkpoint_name(run.saved)}" if run.saved else "so far"
        return f"{counted(run.iteration - run.saved, 'iteration')} {since}"

    if run.world.is_main:
        stopping.stake(lost)
    try:
        yield
    finally:
        stopping.stake(None)


def _before_steps(run: Run, evaluations: Evaluations) -> None:
    """What is evaluated before the first step: what was broken off, or the untrained model."""
    made_up = run.evaluation_due
    known = evaluations.begin()
    if run.iteration == 0 and run.config.evaluation.untrained and not known:
        evaluations.measure()
        if evaluations.needs_checkpoint:
            save(run)
        return
    measured = made_up and not evaluations.needs_checkpoint and run.stopped is None
    if measured and checkpoint_due(run, run.iteration):
        save(run)
    elif measured:
        save_best(run)


def _steps(run: Run, loader: TrainLoader) -> Iterator[Step]:
    return train_steps(
        run.detector,
        run.optimizer,
        run.scaler,
        iter(loader),
        run.config,
        run.derived,
        run.world,
        run.device,
        run.iteration,
        run.losses_of_own,
    )


def _count(
    run: Run, step: Step, progress: TrainingProgress, metrics: Metrics | None, skipped: int
) -> None:
    status = step.status
    split = time_split(step.times, run.world) if progress.is_due(step.iteration) else None
    told = None if split is None or run.world.size == 1 else split.line(run.world)
    line = progress.step(step.iteration, status, step.rate, step.wait_s, told)
    if line is not None and split is not None and metrics is not None:
        seen = step.iteration * run.config.global_batch
        line |= split.as_metrics()
        metrics.write(
            "train", step.iteration, epoch=run.epoch, images_seen=seen, skipped=skipped, **line
        )
    if status.skipped and run.world.is_main:
        LOGGER.warning(
            f"iteration {step.iteration}: {status.skipped} unreadable pictures skipped, "
            f"{skipped} so far"
        )


def _agreed_reason(run: Run) -> str:
    """The lowest rank's: only those that want to stop know why."""
    reasons = gather_objects(stopping.wanted(), run.world, "stop")
    return str(next(reason for reason in reasons if reason is not None))
