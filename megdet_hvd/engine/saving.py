"""Checkpoints of a run: when they are due, and what follows where one can't be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megdet_hvd.checkpoint.file import is_sound, save_checkpoint
from megdet_hvd.checkpoint.naming import BEST, checkpoint_name, list_checkpoints
from megdet_hvd.checkpoint.retention import mark_best, prune_checkpoints
from megdet_hvd.comm.position import go_outside
from megdet_hvd.engine.fingerprints import measure
from megdet_hvd.engine.periods import due_by_epochs, due_by_iterations
from megdet_hvd.engine.prepare import Run
from megdet_hvd.engine.run_folder.best import is_better
from megdet_hvd.engine.run_folder.best_effort import reason_of
from megdet_hvd.engine.state import capture_state
from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.job.agree import ErrorRecord, error_record, mark_agreed
from megdet_hvd.job.exchange import broadcast_object
from megdet_hvd.job.log import LOGGER
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

    It becomes ``best.pt`` where it was measured itself and is the best so far. Where it can't be
    written, the former ones stay and the run goes on, unless ``checkpoint.on_error`` says stop or
    it is the ``last`` one.

    Raises:
        RunError: on all ranks alike; names the newest good checkpoint.
        StorageError: so, where the storage fails for the moment: the run may be tried again.
    """
    name = checkpoint_name(run.iteration)
    problem = _write(run, name)
    if run.evaluations is not None:
        run.evaluations.saved(run.folder.checkpoints / name if problem is None else None)
    if problem is not None:
        _failed(run, problem, last or run.iteration == run.derived.end_iteration)


def save_best(run: Run) -> None:
    """Write ``best.pt`` alone, where no checkpoint is due and the detector is the best so far.

    Every process calls it together, after the detector as it is now was measured. Errors as in
    :func:`save`.
    """
    if broadcast_object(_is_best(run), run.world, "checkpoint.best"):  # rank 0's files count
        problem = _write(run, BEST)
        if problem is not None:
            _failed(run, problem, last=False)


def catch_up(run: Run) -> None:
    """Mark the checkpoint that is carried on from, where its process ended right before it could.

    Every process calls it, before the first step.
    """
    if not _is_best(run):
        return
    path = run.folder.checkpoints / checkpoint_name(run.iteration)
    if not run.world.is_main or _mark(run, path):
        run.best_ap = run.own_ap


def _is_best(run: Run) -> bool:
    """The untrained detector is measured for comparison, not to be kept."""
    return run.iteration > 0 and is_better(run.own_ap, run.best_ap)


def _write(run: Run, name: str) -> ErrorRecord | None:
    """Write the state under a name; what went wrong, the same on all ranks."""
    go_outside("checkpoint")
    best_before, best = run.best_ap, _is_best(run)
    if best:
        run.best_ap = run.own_ap
    state = capture_state(
        run.detector,
        run.optimizer,
        run.scaler,
        run.config,
        run.data.train,
        run.world,
        iteration=run.iteration,
        ap=run.own_ap,
        best_ap=run.best_ap,
        shared_statistics=run.shared_statistics,
        evaluation_due=run.evaluation_due,
    )
    state |= {
        "filed": run.filed,
        "taught": run.boxes_digest,
        "measure": measure(run.config, run.data.val),
        "compared_after": run.compared_after,
    }
    problem: ErrorRecord | None = None
    if run.world.is_main:
        path = run.folder.checkpoints / name
        run.still_ours()
        try:
            save_checkpoint(path, state, before_it_shows=run.still_ours)
            if name != BEST:
                run.own_checkpoints.add(name)
        except (UserError, StorageError, OSError) as error:
            known = as_storage_error(error)
            problem = error_record(
                known if isinstance(known, StorageError) else UserError(str(known))
            )
        if problem is None and name != BEST and not _after(run, path, best):
            run.best_ap = best_before
    problem = broadcast_object(problem, run.world, "checkpoint.problem")
    if problem is None:
        run.saved = run.saved if name == BEST else run.iteration
    else:
        run.best_ap = best_before
    return problem


def _after(run: Run, path: Path, best: bool) -> bool:
    """Mark a checkpoint that was written, and clear others away; whether it could be marked.

    Training goes on where that fails: the checkpoint is there.
    """
    marked = not best or _mark(run, path)
    run.still_ours()
    with _told(run):
        protected = () if run.evaluations is None else run.evaluations.protected
        prune_checkpoints(
            run.folder.checkpoints,
            run.config.checkpoint.keep,
            protected,
            own=run.own_checkpoints,
        )
    return marked


def _mark(run: Run, path: Path) -> bool:
    """Rank 0: let ``best.pt`` stand for a checkpoint; whether it does."""
    run.still_ours()  # this process may have been stopped since the file got its name
    marked = False
    with _told(run):
        mark_best(path)
        marked = True
    return marked


@contextmanager
def _told(run: Run) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        LOGGER.warning(f"warning: checkpoints after iteration {run.iteration}: {reason}")


def _failed(run: Run, problem: ErrorRecord, last: bool) -> None:
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
    try:
        found = list_checkpoints(run.folder.checkpoints)
    except OSError as error:
        return f"Which checkpoints are good can't be seen now ({reason_of(error)})"
    for path in reversed(found):
        if is_sound(path):
            return f"The newest good checkpoint is {path}"
    return "There is no good checkpoint yet"
