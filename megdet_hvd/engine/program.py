"""How an entry point runs in every process of a job, and how it ends.

All processes leave together: after an error that all agree on, in order and with one message
from rank 0; after anything else, by ending the job, since the others are waiting.
"""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from megdet_hvd.cluster.bind import bind_process
from megdet_hvd.cluster.cores import CoreShare
from megdet_hvd.cluster.driver_variables import STOP_FILE
from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.cluster.limits import raise_open_files
from megdet_hvd.cluster.mpi_start import meet_once
from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.job import outcome_notes
from megdet_hvd.storage import as_storage_error

if TYPE_CHECKING:
    from megdet_hvd.engine.needs import SessionNeeds
    from megdet_hvd.job.watch import Watchdog
    from megdet_hvd.job.world import World

T = TypeVar("T")

FAULT = 1
"""A fault of this package, with its traceback."""
USER_ERROR = 2
"""Bad input."""
RUN_ERROR = 3
"""A run that cannot go on."""
HANG = 4
"""A job that hangs, ended by its watchdog."""
STOPPED = 5
"""Stopped on request: nothing is wrong, and the run can be carried on."""
STORAGE_ERROR = 6
"""Storage that fails for the moment: the same may go well later."""


def code_of(error: UserError | RunError | StorageError) -> int:
    """The exit code of a program that this error ends."""
    if isinstance(error, StorageError):
        return STORAGE_ERROR
    return USER_ERROR if isinstance(error, UserError) else RUN_ERROR


_LET_RANK_0_SPEAK_S = 2.0
_LET_WATCHDOG_SPEAK_S = 2.5
"""Horovod's error may come from another rank's death, which rank 0's watchdog tells of."""


@dataclass(frozen=True)
class _Program(Generic[T]):
    """What is run once the value is configured."""

    work: "Callable[[T, World], int]"
    job: "Callable[[T], SessionNeeds] | None"
    machine_of_rank: Sequence[int] | None
    cores: CoreShare | None
    """Those that the process was given; None: it was left as it is."""


def run_program(
    configure: Callable[[], T],
    work: Callable[[T, "World"], int],
    *,
    job: "Callable[[T], SessionNeeds] | None" = None,
    machine_of_rank: Sequence[int] | None = None,
    stoppable: bool = False,
    rank_0_configures: bool = False,
) -> int:
    """Run ``work`` in every process of the job; returns this process's exit code.

    Args:
        configure: reads what the user gave; may raise UserError, on some ranks only.
        work: the program; all processes call it together.
        job: what it asks of the session, for the value that was configured.
        machine_of_rank: see :func:`megdet_hvd.job.session.start`.
        stoppable: ``work`` asks :mod:`megdet_hvd.job.stopping` whether to stop: SIGTERM and
            SIGUSR1 are wishes from here on.
        rank_0_configures: ``configure`` is called on rank 0 alone, and all take what it returns.
    """
    from megdet_hvd.job import stopping

    outcome_notes.begin()
    try:
        launch = read_launch(os.environ)
        meet_once(launch, os.environ)
        cores = bind_process(launch, os.environ)  # before libraries start threads
        raise_open_files()
    except UserError as error:
        return refused(error)
    if stoppable:
        listen(launch)
    try:
        program = _Program(work, job, machine_of_rank, cores)
        return _configured(launch, configure, program, rank_0_configures)
    finally:
        if stoppable:
            stopping.forget()


def listen(launch: Launch) -> None:
    """Take signals, and on rank 0 the driver's file, as wishes to stop from here on."""
    from megdet_hvd.job import stopping

    file = os.environ.get(STOP_FILE)
    alone = launch.controller == "single"
    stopping.listen(
        who="" if alone else f"rank {launch.rank} ({socket.gethostname()})",
        stop_file=Path(file) if file and not launch.rank else None,
    )


def refused(error: UserError | RunError | StorageError) -> int:
    """Say why this process can't take part, before it knows of others; returns the exit code."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    outcome_notes.tell(code_of(error), str(error))
    return code_of(error)


def attempted(
    configure: Callable[[], T],
) -> tuple[T | None, UserError | StorageError | None]:
    """What ``configure`` returns, or the error that the user is to be told of."""
    try:
        return configure(), None
    except (UserError, StorageError, OSError) as error:
        known = as_storage_error(error)
        if not isinstance(known, UserError | StorageError):
            raise
        return None, known


def _configured(
    launch: Launch,
    configure: Callable[[], T],
    program: _Program[T],
    rank_0_configures: bool,
) -> int:
    from megdet_hvd.job.beforehand import rank_0_decides

    def attempt() -> tuple[T | None, UserError | StorageError | None]:
        return attempted(configure)

    try:
        value, problem = rank_0_decides(attempt, launch) if rank_0_configures else attempt()
    except UserError as error:  # of the meeting itself: a key that is none
        return refused(error)
    except RunError as error:
        return refused(error)
    except Exception as fault:
        end_on_fault(launch.rank or 0, fault)
    if problem is not None and launch.controller == "single":
        return refused(problem)
    return _together(launch.rank or 0, value, problem, program)


def _together(
    rank: int,
    value: T | None,
    problem: UserError | StorageError | None,
    program: _Program[T],
) -> int:
    from megdet_hvd.engine.needs import SessionNeeds
    from megdet_hvd.job.abort import end_job
    from megdet_hvd.job.agree import is_agreed
    from megdet_hvd.job.log import LOGGER, log_error, log_urgent, start_log
    from megdet_hvd.job.session import start, stop
    from megdet_hvd.job.watch import Watchdog, start_watchdog

    watchdog = Watchdog(None)
    try:
        wishes = SessionNeeds() if value is None or program.job is None else program.job(value)
        world = start(
            machine_of_rank=program.machine_of_rank,
            settings=wishes.horovod,
            bn_groups=wishes.bn_groups,
            facts=wishes.facts,
            check=wishes.check,
            problem=problem,
        )
        rank = world.rank
        start_log(world)
        if program.cores is not None:
            LOGGER.info(f"rank {rank} runs on cores {program.cores}")
        assert value is not None, "without a value there is a problem"
        watchdog = start_watchdog(
            world,
            wishes.watchdog_s,
            write=log_urgent,
            exit_code=HANG,
            at_end=tell_of_hang,
        )
        code = program.work(value, world)
        if rank == 0:
            outcome_notes.tell(code)
        stop()
        watchdog.stop()
        return code
    except BaseException as raised:
        error = as_storage_error(raised)
        if not isinstance(error, UserError | RunError | StorageError):
            end_on_fault(rank, raised, watchdog)
        code = code_of(error)
        if is_agreed(error):
            if rank == 0:
                log_error(str(error))
                outcome_notes.tell(code, str(error))
            stop()
            watchdog.stop()
            return code
        if rank != 0:
            time.sleep(_LET_RANK_0_SPEAK_S)  # where all have it, rank 0 ends the job first
        log_error(str(error))
        outcome_notes.tell(code, str(error))
        watchdog.fail(str(error))
        end_job(code)
    raise AssertionError("end_job does not return")


def end_on_fault(rank: int, fault: BaseException, watchdog: "Watchdog | None" = None) -> NoReturn:
    """Show it, and end the job.

    Where Horovod fails because another process has ended, that one is who has something to say:
    its own last words, or those of the ``watchdog``, once the kernel has closed its connection.
    """
    from megdet_hvd.job.abort import end_job

    freed = type(fault).__name__ == "HorovodInternalError"
    if freed and watchdog is not None and watchdog.watches:
        time.sleep(_LET_WATCHDOG_SPEAK_S * (1 if rank == 0 else 2))
        if words := watchdog.last_words():
            outcome_notes.tell(FAULT, words)
            end_job(FAULT)
    sys.stderr.write(f"rank {rank} failed:\n{''.join(traceback.format_exception(fault))}")
    last_line = traceback.format_exception_only(fault)[-1].strip()
    outcome_notes.tell(FAULT, f"rank {rank}: {last_line}")
    if watchdog is not None and not freed:
        watchdog.fail(last_line)
    end_job(FAULT)
    raise AssertionError("end_job does not return")


def tell_of_hang(report: str) -> None:
    """The outcome is the watchdog's verdict, without where each rank stands."""
    outcome_notes.tell(HANG, report.partition("\nwhere the ranks stand:")[0])
