"""The program from its start to its end, in every rank: prepare, then train or evaluate.

An exception ends all ranks, since the others wait for the one that failed; but training goes on
without its evaluators, whose work is not what it is for.
"""

import faulthandler
import os
import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.cluster.mpi_start import meet_once
from megdet_hvd.config.paths import expand_path
from megdet_hvd.engine.program import (
    HANG,
    attempted,
    code_of,
    end_on_fault,
    listen,
    refused,
    tell_of_hang,
)
from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.job import outcome_notes
from megdet_hvd.pipeline.keeper import (
    Deaths,
    dismiss,
    give_up,
    keep_place,
    leaves_in_order,
    may_die,
)
from megdet_hvd.storage import as_storage_error

if TYPE_CHECKING:
    from megdet_hvd.job.meeting import Meeting
    from megdet_hvd.job.watch import Watchdog
    from megdet_hvd.job.world import World
    from megdet_hvd.pipeline.roles import Roles
    from megdet_hvd.train import TrainingPlan

_LET_OTHERS_SPEAK_S = 2.0
_FINALIZE_S = 15.0


def run_pipeline(
    configure: "Callable[[], TrainingPlan]", machine_of_rank: Sequence[int] | None = None
) -> int:
    """Run the pipeline in every process of the job; returns this process's exit code."""
    outcome_notes.begin()
    _keep_evaluators_place(configure)
    try:
        launch = _mpi_launch()
    except UserError as error:
        return refused(error)
    from megdet_hvd.job import stopping

    listen(launch)
    try:
        return _run(launch, configure, machine_of_rank)
    finally:
        stopping.forget()


def _keep_evaluators_place(configure: "Callable[[], TrainingPlan]") -> None:
    """Where this process will be an evaluator, have its place kept; see :mod:`.keeper`.

    By this process's own view of the configuration: where it has another one than rank 0, the
    place is kept in vain, or not at all.
    """
    try:
        launch = read_launch(os.environ)
        if launch.controller != "mpi" or not launch.rank or launch.size is None:
            return
        evaluates = launch.rank >= launch.size - configure().config.pipeline.evaluators
    except Exception:  # it is told later, by all together
        return
    if evaluates:
        keep_place(launch.rank)


def _run(
    launch: Launch, configure: "Callable[[], TrainingPlan]", machine_of_rank: Sequence[int] | None
) -> int:
    from megdet_hvd.job.abort import end_job
    from megdet_hvd.job.agree import is_agreed
    from megdet_hvd.job.log import log_error

    program = Program(launch, machine_of_rank)
    try:
        code = program.run(configure)
        if not launch.rank:
            outcome_notes.tell(code)
        return code
    except BaseException as raised:
        error = as_storage_error(raised)
        if not isinstance(error, UserError | RunError | StorageError):
            end_on_fault(launch.rank or 0, raised, program.watchdog)
        code = code_of(error)
        if not program.speaks:
            time.sleep(_LET_OTHERS_SPEAK_S)  # where all have it, the first ends the job
        if program.speaks or not is_agreed(error):
            log_error(str(error))
            outcome_notes.tell(code, str(error))
        if program.together and is_agreed(error):
            return code
        if program.watchdog is not None and (program.speaks or not is_agreed(error)):
            program.watchdog.fail(str(error))
        end_job(code)
    raise AssertionError("end_job does not return")


def _mpi_launch() -> Launch:
    launch = read_launch(os.environ)
    meet_once(launch, os.environ)
    if launch.controller != "mpi":
        raise UserError(
            f"python -m megdet_hvd.pipeline is an MPI program, and {launch.launcher} started it; "
            "start it with mpirun -np N python -m megdet_hvd.pipeline …, horovodrun --mpi or "
            "srun --mpi=pmix"
        )
    return launch


class Program:
    """One run of the pipeline, as one rank sees it."""

    def __init__(self, launch: Launch, machine_of_rank: Sequence[int] | None) -> None:
        self.launch = launch
        self.machine_of_rank = machine_of_rank
        self.speaks = launch.rank in (0, None)
        """Whether this rank tells the user of an error that several have."""
        self.together = True
        """Whether an error that is agreed on is that of all ranks, so that all leave in order."""
        self.watchdog: Watchdog | None = None
        self.lost = False
        """Whether evaluators' processes have ended; the trainers agree on it."""
        self._nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
        self.places: dict[int, Path] = {}
        """By evaluator's rank: the file that gives its place in the job up."""

    def run(self, configure: "Callable[[], TrainingPlan]") -> int:
        """All stages; returns the exit code. All ranks call it together."""
        from mpi4py import MPI

        from megdet_hvd.job.agree import mark_agreed
        from megdet_hvd.job.beforehand import rank_0_decides
        from megdet_hvd.job.log import LOGGER, log_urgent, start_log
        from megdet_hvd.job.meeting import MpiMeeting
        from megdet_hvd.job.watch import start_watchdog
        from megdet_hvd.pipeline.prepare import prepare_data
        from megdet_hvd.pipeline.roles import describe_roles, share_roles

        def attempt() -> "tuple[TrainingPlan | None, UserError | StorageError | None]":
            return attempted(configure)

        # Files may look different from other machines, a run to carry on above all.
        plan, problem = rank_0_decides(attempt, self.launch)
        meeting = MpiMeeting(MPI.COMM_WORLD)
        world = self._world(meeting, plan, problem)
        assert plan is not None, "without a plan there is a problem"
        start_log(world)
        try:
            roles = share_roles(world.size, _evaluators(plan))
        except UserError as error:
            raise mark_agreed(error) from None
        LOGGER.info(describe_roles(roles, world))
        self.watchdog = start_watchdog(
            world,
            plan.config.watchdog.seconds,
            write=log_urgent,
            exit_code=HANG,
            gather=partial(meeting.gather, name="watchdog"),
            at_end=tell_of_hang,
            dispensable=roles.evaluators,
        )
        nonce = meeting.gather(secrets.token_hex(8) if world.is_main else "", "places")[0]
        output = expand_path(plan.config.output, "output")
        self.places = {rank: output / f".evaluator-{nonce}-{rank}" for rank in roles.evaluators}
        plan = replace(plan, prepared=prepare_data(plan.config, meeting, world).data)
        code = self._train_and_evaluate(plan, roles, world, MPI.COMM_WORLD)
        if self.lost:  # nobody can meet the dead
            self.watchdog.stop()
            self._leave_the_dead(world, code)
            return code
        code = int(meeting.gather(code, "end")[0])
        self.watchdog.stop()
        meeting.close()
        leaves_in_order()
        return code

    def _leave_the_dead(self, world: "World", code: int) -> None:
        """Whoever keeps the places of evaluators whose processes have ended may go."""
        from mpi4py import MPI

        for place in self.places.values() if world.is_main else ():
            with suppress(OSError):
                dismiss(place)
        if world.is_main:
            outcome_notes.tell(code)
        # Where it waits all the same, it holds Python's lock: no thread of Python's would come.
        faulthandler.dump_traceback_later(_FINALIZE_S, exit=True, file=self._nowhere)
        MPI.Finalize()  # which the dead are not needed for, in Open MPI
        faulthandler.cancel_dump_traceback_later()
        if world.is_main:
            for place in self.places.values():
                with suppress(OSError):
                    give_up(place)

    def _world(
        self,
        meeting: "Meeting",
        plan: "TrainingPlan | None",
        problem: UserError | StorageError | None,
    ) -> "World":
        """Who takes part, told before Horovod runs.

        Raises:
            UserError: a rank could not be configured, or the ranks don't fit together.
        """
        from megdet_hvd.cluster.threads import cores_per_process
        from megdet_hvd.engine.needs import SessionNeeds, training_job
        from megdet_hvd.job.agree import as_told, mark_agreed, raise_first
        from megdet_hvd.job.session import machine_key
        from megdet_hvd.job.world import World, machines_of

        cores = frozenset(os.sched_getaffinity(0))
        job = SessionNeeds() if plan is None else training_job(plan.config)
        facts = None if job.facts is None else job.facts()
        found = meeting.gather((machine_key(), cores, as_told(problem), facts), "start")
        raise_first([one[2] for one in found])
        all_facts = [one[3] for one in found]
        keys = self.machine_of_rank or [one[0] for one in found]
        machines = machines_of(keys)
        # Of all ranks: trainers and evaluators share machines, and read what the others write.
        if job.check is not None and (misfit := job.check(all_facts, machines)) is not None:
            raise mark_agreed(UserError(misfit))
        local = next(ranks for ranks in machines if meeting.rank in ranks)
        shared = cores_per_process([found[rank][1] for rank in local])
        return World(meeting.rank, meeting.size, machines, shared, self.launch.launcher)

    def _train_and_evaluate(
        self, plan: "TrainingPlan", roles: "Roles", world: "World", everyone: Any
    ) -> int:
        """The second stage: each group on a communicator and in a Horovod session of its own.

        Returns training's exit code, on the trainers.
        """
        from megdet_hvd.comm.position import number_ranks
        from megdet_hvd.engine.best_effort import reason_of
        from megdet_hvd.engine.needs import evaluation_job, training_job
        from megdet_hvd.job.exchange import broadcast_object
        from megdet_hvd.job.log import LOGGER
        from megdet_hvd.job.session import start, stop, stop_horovod
        from megdet_hvd.pipeline.concurrent_evaluation import evaluate_concurrently
        from megdet_hvd.pipeline.evaluator import evaluate_orders
        from megdet_hvd.pipeline.mailbox import EvaluatorsMailbox, TrainersMailbox
        from megdet_hvd.train import train_in_world

        self.together = False
        trains = world.rank in roles.trainers
        members = roles.trainers if trains else roles.evaluators
        self.speaks = world.rank == members[0]
        job = training_job(plan.config, plan.resumption) if trains else evaluation_job(plan.config)
        code = 0
        communicator = everyone.Split(int(trains), world.rank)
        messages = everyone.Dup()
        pretended = self.machine_of_rank
        number_ranks(None if trains else members)
        session = start(
            communicator=communicator,
            machine_of_rank=None if pretended is None else [pretended[r] for r in members],
            settings=job.horovod,
            bn_groups=job.bn_groups,
        )
        # Cores are shared with the other group's processes on the same machine.
        session = replace(session, cores=world.cores, launcher=world.launcher)
        if not roles.evaluators:
            code = train_in_world(plan, session)
        elif trains:
            assert self.watchdog is not None, "it was started before"
            watchdog = self.watchdog
            deaths = Deaths(self.places)

            def died() -> tuple[int, ...]:
                return watchdog.lost() or deaths()

            desk = TrainersMailbox(messages, roles.evaluators, died) if world.is_main else None
            code = train_in_world(plan, session, evaluate_concurrently(desk))
            if desk is not None:
                desk.close()
                watchdog.need_all()
                desk.look_for_loss()
            dead = desk is not None and desk.dead
            self.lost = bool(broadcast_object(dead, session, "pipeline.lost"))
        else:
            may_die(self.places[world.rank])
            evaluate = EvaluatorsMailbox(messages)
            try:
                evaluate_orders(plan.config, session, evaluate, world)
            except Exception as fault:  # the other evaluators may wait for this one for ever
                if type(fault).__name__ == "HorovodInternalError":
                    time.sleep(_LET_OTHERS_SPEAK_S)  # freed by one that has more to say
                else:
                    LOGGER.error("".join(traceback.format_exception(fault)).rstrip())
                evaluate.give_up(f"rank {world.rank}: {reason_of(fault)}")
                stop_horovod()  # which frees them
                evaluate.drop_orders()
        stop()
        number_ranks(None)
        if not self.lost:
            messages.Free()
            communicator.Free()
        return code


def _evaluators(plan: "TrainingPlan") -> int:
    """How many ranks evaluate.

    Raises:
        UserError: they would have nothing to do.
    """
    data, evaluators = plan.config.data, plan.config.pipeline.evaluators
    if evaluators and data.kind == "coco" and not data.val:
        raise UserError(
            f"pipeline.evaluators={evaluators}, and there is nothing to evaluate on: give "
            "data.val, or set pipeline.evaluators=0"
        )
    return evaluators
