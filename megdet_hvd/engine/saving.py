"""Checkpoints of a run: when they are due, and what follows where one can't be written."""

from megdet_hvd.checkpoint.file import is_sound, save_checkpoint
from megdet_hvd.checkpoint.naming import checkpoint_name, list_checkpoints
from megdet_hvd.checkpoint.retention import mark_best, prune_checkpoints
from megdet_hvd.comm.agree import Told, as_told, mark_agreed
from megdet_hvd.comm.exchange import broadcast_object
from megdet_hvd.comm.position import go_outside
from megdet_hvd.engine.log import LOGGER
from megdet_hvd.engine.periods import due_by_epochs, due_by_iterations
from megdet_hvd.engine.prepare import Run
from megdet_hvd.engine.state import capture_state
from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.storage import as_storage_error


def checkpoint_due(run: Run, iteration: int) -> bool:
    """Whether a checkpoint is due after ``iteration`` steps."""
    settings = run.config.checkpoint
    size, batch = len(run.data.train), run.config.global_batch
    return (
        iteration == run.derived.end_iteration
        or due_by_epochs(iteration, settings.every_epochs, size, batch)
        or due_by_iterations(iteration, settings.every_iterations)
    )


def save(run: Run, *, last: bool = False) -> None:
    """Write a checkpoint. Every process calls it together.

    Between two that are due (a stop on request) it never becomes ``best.pt``, so that a run in
    two parts keeps the same one as a run in one. Where it can't be written, the former ones stay
    and the run goes on, unless ``checkpoint.on_error`` says stop or it is the ``last`` one.

    Raises:
        RunError: on all ranks alike; names the newest good checkpoint.
        StorageError: so, where the storage fails for the moment: the run may be tried again.
    """
    go_outside("checkpoint")
    due = checkpoint_due(run, run.iteration) and not run.evaluation_due
    best_before = run.best_ap
    best = due and run.ap is not None and (run.best_ap is None or run.ap > run.best_ap)
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
        evaluation_due=run.evaluation_due,
    )
    problem: Told | None = None
    if run.world.is_main:
        path = run.folder.checkpoints / checkpoint_name(run.iteration)
        run.still_ours()
        try:
            save_checkpoint(path, state, before_it_shows=run.still_ours)
            run.own_checkpoints.add(path.name)
            if best:
                mark_best(path)
            protected = () if run.evaluations is None else run.evaluations.protected
            prune_checkpoints(
                run.folder.checkpoints,
                run.config.checkpoint.keep,
                protected,
                own=run.own_checkpoints,
            )
        except (UserError, StorageError, OSError) as error:
            known = as_storage_error(error)
            problem = as_told(known if isinstance(known, StorageError) else UserError(str(known)))
    problem = broadcast_object(problem, run.world, "checkpoint.problem")
    if run.evaluations is not None:
        file = run.folder.checkpoints / checkpoint_name(run.iteration)
        run.evaluations.saved(file if problem is None else None)
    if problem is not None:
        run.best_ap = best_before
        _failed(run, problem, last or run.iteration == run.derived.end_iteration)


def _failed(run: Run, problem: Told, last: bool) -> None:
    kind, reason = problem
    text = f"iteration {run.iteration}: the checkpoint could not be written: {reason}"
    if last or run.config.checkpoint.on_error == "stop":
        good = _newest_good(run) if run.world.is_main else ""
        raised = StorageError if kind == "StorageError" else RunError
        raise mark_agreed(raised(f"{text}. {good}"))
    if run.world.is_main:
        end = run.derived.end_iteration
        later = range(run.iteration + 1, end + 1)
        following = next((i for i in later if checkpoint_due(run, i)), end)
        LOGGER.error(
            f"error: {text}. Training goes on (checkpoint.on_error=continue); the next attempt is "
            f"due after iteration {following}. {_newest_good(run)}"
        )


def _newest_good(run: Run) -> str:
    for path in reversed(list_checkpoints(run.folder.checkpoints)):
        if is_sound(path):
            return f"The newest good checkpoint is {path}"
    return "There is no good checkpoint yet"
