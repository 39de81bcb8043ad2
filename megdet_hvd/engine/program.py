"""How an entry point runs in every process of a job, and how it ends.

All processes leave together: after an error that all agree on, in order and with one message
from rank 0; after anything else, by ending the job, since the others are waiting.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from megdet_hvd.cluster.bind import bind_process
from megdet_hvd.cluster.cores import CoreShare
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.errors import RunError, UserError

if TYPE_CHECKING:
    from megdet_hvd.comm.world import World
    from megdet_hvd.engine.job import Job

T = TypeVar("T")

FAULT = 1
"""A fault of this package, with its traceback."""
USER_ERROR = 2
"""Bad input."""
RUN_ERROR = 3
"""A run that cannot go on."""
HANG = 4
"""A job that hangs, ended by its watchdog."""

_LET_RANK_0_SPEAK_S = 2.0


def run_program(
    configure: Callable[[], T],
    work: Callable[[T, "World"], int],
    *,
    job: "Callable[[T], Job] | None" = None,
    machine_of_rank: Sequence[int] | None = None,
) -> int:
    """Run ``work`` in every process of the job; returns this process's exit code.

    Args:
        configure: reads what the user gave; may raise UserError, on some ranks only.
        work: the program; all processes call it together.
        job: what it asks of the session, for the value that was configured.
        machine_of_rank: see :func:`megdet_hvd.comm.session.start`.
    """
    value: T | None = None
    problem: UserError | None = None
    try:
        launch = read_launch(os.environ)
        cores = bind_process(launch, os.environ)  # before libraries start threads
        try:
            value = configure()
        except UserError as error:
            problem = error
            if launch.controller == "single":
                raise
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_ERROR
    return _together(launch.rank or 0, value, problem, work, job, machine_of_rank, cores)


def _together(
    rank: int,
    value: T | None,
    problem: UserError | None,
    work: Callable[[T, "World"], int],
    job: "Callable[[T], Job] | None",
    machine_of_rank: Sequence[int] | None,
    cores: CoreShare | None,
) -> int:
    from megdet_hvd.comm.abort import end_job
    from megdet_hvd.comm.agree import agree, is_agreed
    from megdet_hvd.comm.session import start, stop
    from megdet_hvd.comm.watchdog import Watchdog, start_watchdog
    from megdet_hvd.engine.job import Job
    from megdet_hvd.engine.log import LOGGER, log_error, log_urgent, start_log

    watchdog = Watchdog(None)
    try:
        wishes = Job() if value is None or job is None else job(value)
        world = start(
            machine_of_rank=machine_of_rank,
            settings=wishes.horovod,
            bn_groups=wishes.bn_groups,
            view=wishes.view,
            hear=wishes.hear,
            facts=wishes.facts,
            check=wishes.check,
        )
        rank = world.rank
        start_log(world)
        if cores is not None:
            LOGGER.info(f"rank {rank} runs on cores {cores}")
        agree(problem, world, "configuration")
        assert value is not None, "without a value there is a problem"
        watchdog = start_watchdog(world, wishes.watchdog_s, write=log_urgent, exit_code=HANG)
        code = work(value, world)
        stop()
        watchdog.stop()
        return code
    except (UserError, RunError) as error:
        code = USER_ERROR if isinstance(error, UserError) else RUN_ERROR
        if is_agreed(error):
            if rank == 0:
                log_error(str(error))
            stop()
            watchdog.stop()
            return code
        if rank != 0:
            time.sleep(_LET_RANK_0_SPEAK_S)  # where all have it, rank 0 ends the job first
        log_error(str(error))
        end_job(code)
    except BaseException:
        sys.stderr.write(f"rank {rank} failed:\n{traceback.format_exc()}")
        end_job(FAULT)
    raise AssertionError("end_job does not return")
