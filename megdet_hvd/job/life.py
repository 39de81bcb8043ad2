"""The life of a job, as one of its processes lives it: the same for every program.

    configure → meet → start → watch → work → end

Two owners a process may have. Where it is ours (:func:`run_program`), all processes leave together:
after an error that all agree on, in order and with one message from rank 0; after anything else, by
ending the job, since the others are waiting. Where it is somebody's (:func:`run_member`), all
members end with a result, or all with an exception, and nothing of the program is ended or changed
for good; only a member that hangs or has died makes the watchdog end it: nobody could be told.
"""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from megdet_hvd.cluster.bind import bind_process
from megdet_hvd.cluster.cores import CoreShare
from megdet_hvd.cluster.driver_variables import STOP_FILE
from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.cluster.limits import raise_open_files
from megdet_hvd.cluster.mpi_start import meet_once
from megdet_hvd.cluster.network_card import use_network_card
from megdet_hvd.collector import collector_at_rest
from megdet_hvd.errors import (
    FAULT,
    HANG,
    RunError,
    StorageError,
    UserError,
    exit_code_of,
    text_of,
)
from megdet_hvd.job import outcome_notes
from megdet_hvd.storage import as_storage_error

if TYPE_CHECKING:
    from megdet_hvd.job.meeting import Meeting
    from megdet_hvd.job.needs import SessionNeeds
    from megdet_hvd.job.watch import Watchdog
    from megdet_hvd.job.world import World

T = TypeVar("T")
R = TypeVar("R")

Refusal = UserError | StorageError | None
"""Why a process can't take part; None: it can."""

_LET_OTHERS_SPEAK_S = 2.0
"""Where several have an error, the first of them ends the job."""
_LET_WATCHDOG_SPEAK_S = 2.5
"""Horovod's error may come from another rank's death, which rank 0's watchdog tells of."""


@dataclass(frozen=True)
class Program(Generic[T]):
    """What a job runs."""

    configure: Callable[[], T]
    """Reads what the user gave; may raise UserError or StorageError, on some ranks only."""
    work: "Callable[[T, Life[T]], int]"
    """The program, of which all processes call it together; returns the exit code."""
    early: Callable[[T], None] | None = None
    """Called with the value as soon as it is known: starts what may run beside the imports."""
    needs: "Callable[[T], SessionNeeds] | None" = None
    """What it asks of the session, for the value that was configured."""
    machine_of_rank: Sequence[int] | None = None
    """See :func:`megdet_hvd.job.session.start`."""
    stoppable: bool = False
    """``work`` asks :mod:`megdet_hvd.job.stopping` whether to stop: SIGTERM and SIGUSR1 ask for it
    from the beginning on."""
    rank_0_configures: bool = False
    """``configure`` is called on rank 0 alone, and all take what it returns."""
    refuse: Callable[[Launch], None] | None = None
    """Raises UserError where the program can't run under a launcher."""
    meet: "Callable[[Life[T], SessionNeeds, Refusal], World] | None" = None
    """Finds out who takes part, and raises the ``problem`` of any; None: starts Horovod's session
    of all processes. It may set :attr:`Life.gather`."""


def run_program(program: Program[T]) -> int:
    """Live through it in every process of the job; returns this process's exit code."""
    from megdet_hvd.job import stopping

    outcome_notes.begin()
    try:
        launch = read_launch(os.environ)
        meet_once(launch, os.environ)
        if program.refuse is not None:
            program.refuse(launch)
        use_network_card(launch, os.environ)
        cores = bind_process(launch, os.environ)  # before libraries start threads
        raise_open_files()
    except UserError as error:
        return _refused(error)
    if program.stoppable:
        _listen(launch)
    try:
        return Life(program, launch, cores).run()
    finally:
        if program.stoppable:
            stopping.forget()


class Life(Generic[T]):
    """Where a process of ours is in its life, and how it ends."""

    world: "World"
    """All processes; there once they have met."""

    def __init__(self, program: Program[T], launch: Launch, cores: CoreShare | None) -> None:
        """``cores``: those that the process was given; None: it was left as it is."""
        self.program, self.launch, self._cores = program, launch, cores
        self.watchdog: Watchdog | None = None
        self.gather: Callable[[Any], list[Any]] | None = None
        """Values of all processes, by rank, on each, for the watchdog; None: over Horovod."""
        self.speaks = launch.rank in (0, None)
        """Whether this rank tells the user of an error that several have."""
        self.together = True
        """Whether an error that is agreed on is that of all ranks, so that all leave in order."""

    @property
    def rank(self) -> int:
        """This process's."""
        return self.launch.rank or 0

    def run(self) -> int:
        """All of it; returns the exit code."""
        try:
            value, problem = self._configured()
        except (UserError, RunError) as error:  # of the meeting itself: a key that is none
            return _refused(error)
        except BaseException as fault:  # SystemExit, too, where others wait for this process
            if not isinstance(fault, Exception) and self.launch.controller == "single":
                raise
            self._end_on_fault(fault)
        if problem is not None and self.launch.controller == "single":
            return _refused(problem)
        try:
            return self._worked(value, problem)
        except BaseException as raised:
            return self._end_on(as_storage_error(raised))

    def _configured(self) -> tuple[T | None, Refusal]:
        from megdet_hvd.job.meeting import rank_0_decides

        def attempt() -> tuple[T | None, Refusal]:
            return attempted(self.program.configure)

        # Files may look different from other machines, a run to carry on above all.
        if self.program.rank_0_configures:
            return rank_0_decides(attempt, self.launch)
        return attempt()

    def _worked(self, value: T | None, problem: Refusal) -> int:
        if self.program.early is not None and value is not None:
            self.program.early(value)
        with collector_at_rest():
            value, watchdog = self._met(value, problem)
        from megdet_hvd.job.session import stop

        code = self.program.work(value, self)
        if self.world.rank == 0:
            outcome_notes.tell(code)
        stop()
        watchdog.stop()
        return code

    def _met(self, value: T | None, problem: Refusal) -> "tuple[T, Watchdog]":
        """All processes have met, and are watched; returns what was configured, now for certain.

        Raises:
            UserError, StorageError: the ``problem`` of any process; on all ranks alike.
        """
        from megdet_hvd.job.log import LOGGER, log_urgent, start_log
        from megdet_hvd.job.needs import SessionNeeds
        from megdet_hvd.job.watch import start_watchdog

        asked = None if value is None else self.program.needs
        needs = SessionNeeds() if asked is None or value is None else asked(value)
        for name, word in needs.environment.items():
            os.environ.setdefault(name, word)
        self.world = world = (self.program.meet or _start_session)(self, needs, problem)
        start_log(world)
        if self._cores is not None:
            LOGGER.info(f"rank {world.rank} runs on cores {self._cores}")
        assert value is not None, "without a value there is a problem"
        self.watchdog = start_watchdog(
            world,
            needs.watchdog_s,
            write=log_urgent,
            exit_code=HANG,
            gather=self.gather,
            at_end=_tell_of_hang,
            dispensable=needs.dispensable(world),
        )
        return value, self.watchdog

    def _end_on(self, error: BaseException) -> int:
        """End because of it: in order where all ranks do, else all of the job at once."""
        from megdet_hvd.job.abort import end_job
        from megdet_hvd.job.agree import is_agreed
        from megdet_hvd.job.log import log_error
        from megdet_hvd.job.session import stop

        if not isinstance(error, UserError | RunError | StorageError):
            self._end_on_fault(error)
        code, agreed = exit_code_of(error), is_agreed(error)
        in_order = agreed and self.together
        if not in_order and not self.speaks:
            time.sleep(_LET_OTHERS_SPEAK_S)
        if self.speaks or not agreed:
            log_error(text_of(error))
            outcome_notes.tell(code, text_of(error))
        if in_order:
            stop()
            if self.watchdog is not None:
                self.watchdog.stop()
            return code
        if self.watchdog is not None:
            self.watchdog.fail(text_of(error))
        end_job(code)
        raise AssertionError("end_job does not return")

    def _end_on_fault(self, fault: BaseException) -> NoReturn:
        """Show it, and end the job.

        Where Horovod fails because another process has ended, that one is who has something to say:
        its own last words, or those of the watchdog, once the kernel has closed its connection.
        """
        from megdet_hvd.job.abort import end_job

        freed = type(fault).__name__ == "HorovodInternalError"
        if freed and self.watchdog is not None and self.watchdog.watches:
            time.sleep(_LET_WATCHDOG_SPEAK_S * (1 if self.rank == 0 else 2))
            if words := self.watchdog.last_words():
                outcome_notes.tell(FAULT, words)
                end_job(FAULT)
        trace = "".join(traceback.format_exception(fault))
        sys.stderr.write(f"rank {self.rank} failed:\n{trace}")
        last_line = traceback.format_exception_only(fault)[-1].strip()
        outcome_notes.tell(FAULT, f"rank {self.rank}: {last_line}")
        if self.watchdog is not None and not freed:
            self.watchdog.fail(last_line)
        end_job(FAULT)
        raise AssertionError("end_job does not return")


def _start_session(life: Life[Any], needs: "SessionNeeds", problem: Refusal) -> "World":
    from megdet_hvd.job.session import start

    return start(
        machine_of_rank=life.program.machine_of_rank,
        settings=needs.horovod,
        bn_groups=needs.bn_groups,
        facts=needs.facts,
        check=needs.check,
        problem=problem,
    )


def attempted(configure: Callable[[], T]) -> tuple[T | None, Refusal]:
    """What ``configure`` returns, or the error that the user is to be told of."""
    try:
        return configure(), None
    except (UserError, StorageError, OSError) as error:
        known = as_storage_error(error)
        if not isinstance(known, UserError | StorageError):
            raise
        return None, known


def _listen(launch: Launch) -> None:
    """Take signals, and on rank 0 the driver's file, as requests to stop from here on."""
    from megdet_hvd.job import stopping

    file = os.environ.get(STOP_FILE)
    alone = launch.controller == "single"
    stopping.listen(
        who="" if alone else f"rank {launch.rank} ({socket.gethostname()})",
        stop_file=Path(file) if file and not launch.rank else None,
    )


def _refused(error: UserError | RunError | StorageError) -> int:
    """Say why this process can't take part, before it knows of others; returns the exit code."""
    print(f"error: {text_of(error)}", file=sys.stderr, flush=True)
    outcome_notes.tell(exit_code_of(error), text_of(error))
    return exit_code_of(error)


def _tell_of_hang(report: str) -> None:
    """The outcome is the watchdog's verdict, without where each rank stands."""
    outcome_notes.tell(HANG, report.partition("\nwhere the ranks stand:")[0])


def run_member(
    meeting: "Meeting",
    configure: "Callable[[Meeting], T]",
    work: "Callable[[T, World], R]",
    *,
    needs: "Callable[[T], SessionNeeds]",
    communicator: Any = None,
    machine_of_rank: Sequence[int] | None = None,
    borrowed: Sequence[AbstractContextManager[Any]] = (),
) -> R:
    """Live through it as a member of somebody's program. All members call it together.

    Args:
        meeting: of the members; closed at the end.
        configure: agrees with the others on what is done; an error it raises is everybody's.
        work: what is done; returns the result, of which rank 0's counts.
        needs: what it asks of the session.
        communicator: of mpi4py, whose processes are the members; None: all processes of the job.
        machine_of_rank: see :func:`megdet_hvd.job.session.start`.
        borrowed: what the program has and this changes; left last.

    Raises:
        Exception: on all members; see :func:`megdet_hvd.job.members_ending.exception_of`.
    """
    from megdet_hvd.comm.position import count_steps_anew, go_outside
    from megdet_hvd.job.horovod_settings import changed_environment
    from megdet_hvd.job.log import log_urgent
    from megdet_hvd.job.members_ending import end_together, exception_of
    from megdet_hvd.job.session import start
    from megdet_hvd.job.watch import Watchdog, start_watchdog

    watchdog = Watchdog(None)
    result: R | None = None
    error: BaseException | None = None
    with ExitStack() as lent:
        for one in borrowed:
            lent.enter_context(one)
        try:
            count_steps_anew()
            go_outside("starting")
            value = configure(meeting)
            asked = needs(value)
            missing = {k: v for k, v in asked.environment.items() if k not in os.environ}
            lent.enter_context(changed_environment(missing))
            world = start(
                communicator=communicator,
                interrupted=meeting.heard_of_failure,
                machine_of_rank=machine_of_rank,
                settings=asked.horovod,
                bn_groups=asked.bn_groups,
            )
            watchdog = start_watchdog(
                world,
                asked.watchdog_s,
                write=log_urgent,
                exit_code=HANG,
                # Its secret travels along.
                gather=partial(meeting.gather, name="watchdog") if meeting.private else None,
            )
            result = work(value, world)
        except BaseException as raised:
            error = as_storage_error(raised)
        endings = end_together(meeting, result, error)
        watchdog.stop()
    go_outside("outside of training")
    meeting.close()
    told = exception_of(endings, meeting.rank, error)
    if error is not None:
        # The frames of the run would keep its model, and its loader processes, as long as the
        # caller keeps the exception.
        traceback.clear_frames(error.__traceback__)
    if told is not None:
        raise told from (error if told is not error else error.__cause__ if error else None)
    found: R = endings[0].result
    return found
