"""One run of the pipeline: meet over MPI, prepare, then train or evaluate.

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
from megdet_hvd.config.paths import expand_path
from megdet_hvd.errors import UserError
from megdet_hvd.job import outcome_notes
from megdet_hvd.job.life import Life, Program, Refusal, run_program
from megdet_hvd.pipeline.keeper import (
    Deaths,
    connections_to_pmix,
    dismiss,
    give_up,
    keep_place,
    leaves_in_order,
    may_die,
)

if TYPE_CHECKING:
    from megdet_hvd.config.pipeline_roles import Roles
    from megdet_hvd.job.meeting import MpiMeeting
    from megdet_hvd.job.needs import SessionNeeds
    from megdet_hvd.job.world import World
    from megdet_hvd.train import TrainingPlan

_LET_OTHERS_SPEAK_S = 2.0
_FINALIZE_S = 5.0


def run_pipeline(
    configure: "Callable[[], TrainingPlan]", machine_of_rank: Sequence[int] | None = None
) -> int:
    """Run the pipeline in every process of the job; returns this process's exit code."""
    _keep_evaluators_place(configure)
    pipeline = _Pipeline(machine_of_rank)
    return run_program(
        Program(
            configure,
            pipeline.work,
            needs=_needs,
            machine_of_rank=machine_of_rank,
            stoppable=True,
            rank_0_configures=True,
            refuse=_refuse_other_launchers,
            meet=pipeline.meet,
        )
    )


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


def _refuse_other_launchers(launch: Launch) -> None:
    if launch.controller != "mpi":
        raise UserError(
            f"python -m megdet_hvd.pipeline is an MPI program, and {launch.launcher} started it; "
            "start it with mpirun -np N python -m megdet_hvd.pipeline …, horovodrun --mpi or "
            "srun --mpi=pmix"
        )


def _needs(plan: "TrainingPlan") -> "SessionNeeds":
    """Of all ranks: trainers and evaluators share machines, and read what the others write."""
    from megdet_hvd.engine.needs import training_needs

    return replace(
        training_needs(plan.config), dispensable=lambda world: _roles(plan, world).evaluators
    )


def _roles(plan: "TrainingPlan", world: "World") -> "Roles":
    """Raises UserError, on all ranks alike: there are too few, or nothing to evaluate."""
    from megdet_hvd.config.pipeline_roles import evaluators_of, share_roles
    from megdet_hvd.job.agree import mark_agreed

    try:
        return share_roles(world.size, evaluators_of(plan.config))
    except UserError as error:
        raise mark_agreed(error) from None


def _is_under_srun(world: "World") -> bool:
    return world.launcher == "srun"


class _Pipeline:
    """What one rank keeps over the stages."""

    meeting: "MpiMeeting"
    """Of all ranks."""

    def __init__(self, machine_of_rank: Sequence[int] | None) -> None:
        self.machine_of_rank = machine_of_rank
        self.lost = False
        """Whether evaluators' processes have ended; the trainers agree on it."""
        self._nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
        self.places: dict[int, Path] = {}
        """By evaluator's rank: the file that gives its place in the job up."""

    def meet(self, life: Life[Any], needs: "SessionNeeds", problem: Refusal) -> "World":
        """Who takes part, told before Horovod runs.

        Raises:
            UserError, StorageError: a rank could not be configured, or the ranks don't fit
                together.
        """
        from mpi4py import MPI

        from megdet_hvd.job.meeting import MpiMeeting
        from megdet_hvd.job.session import meet_all
        from megdet_hvd.job.world import World

        met = meet_all(
            life.launch,
            machine_of_rank=self.machine_of_rank,
            facts=needs.facts,
            check=needs.check,
            problem=problem,
        )
        self.meeting = MpiMeeting(MPI.COMM_WORLD)
        life.gather = partial(self.meeting.gather, name="watchdog")
        local = next(ranks for ranks in met.machines if self.meeting.rank in ranks)
        shared = met.cores[met.machines.index(local)]
        return World(
            self.meeting.rank, self.meeting.size, met.machines, shared, life.launch.launcher
        )

    def work(self, plan: "TrainingPlan", life: "Life[TrainingPlan]") -> int:
        """All stages; returns the exit code. All ranks call it together."""
        from megdet_hvd.config.pipeline_roles import describe_roles
        from megdet_hvd.job.log import LOGGER
        from megdet_hvd.pipeline.prepare import prepare_data

        world, meeting = life.world, self.meeting
        assert life.watchdog is not None, "it was started before"
        roles = _roles(plan, world)
        LOGGER.info(describe_roles(roles))
        nonce = meeting.gather(secrets.token_hex(8) if world.is_main else "", "places")[0]
        output = expand_path(plan.config.output, "output")
        self.places = {rank: output / f".evaluator-{nonce}-{rank}" for rank in roles.evaluators}
        plan = replace(plan, prepared=prepare_data(plan.config, meeting, world).data)
        code = self._train_and_evaluate(plan, roles, life)
        if self.lost:  # nobody can meet the dead
            life.watchdog.stop()
            self._leave_the_dead(world, code)
            return code
        code = int(meeting.gather(code, "end")[0])
        life.watchdog.stop()
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
        if _is_under_srun(world):
            self._give_up_places(world)
        # Where it waits all the same, it holds Python's lock: no thread of Python's would come.
        faulthandler.dump_traceback_later(_FINALIZE_S, exit=True, file=self._nowhere)
        MPI.Finalize()  # which the dead are not needed for, in Open MPI
        faulthandler.cancel_dump_traceback_later()
        self._give_up_places(world)

    def _give_up_places(self, world: "World") -> None:
        for place in self.places.values() if world.is_main else ():
            with suppress(OSError):
                give_up(place)

    def _train_and_evaluate(
        self, plan: "TrainingPlan", roles: "Roles", life: "Life[TrainingPlan]"
    ) -> int:
        """The second stage: each group on a communicator and in a Horovod session of its own.

        Returns training's exit code, on the trainers.
        """
        from mpi4py import MPI

        from megdet_hvd.comm.position import number_ranks
        from megdet_hvd.engine.needs import evaluation_needs, training_needs
        from megdet_hvd.engine.run_folder.best_effort import reason_of
        from megdet_hvd.job.exchange import broadcast_object
        from megdet_hvd.job.log import LOGGER
        from megdet_hvd.job.session import start, stop, stop_horovod
        from megdet_hvd.pipeline.concurrent_evaluation import evaluate_concurrently
        from megdet_hvd.pipeline.evaluator import serve_requests
        from megdet_hvd.pipeline.mailbox import EvaluatorsMailbox, TrainersMailbox
        from megdet_hvd.train import train_in_world

        life.together = False
        world, everyone = life.world, MPI.COMM_WORLD
        trains = world.rank in roles.trainers
        members = roles.trainers if trains else roles.evaluators
        life.speaks = world.rank == members[0]
        config = plan.config
        needs = training_needs(config, plan.resumption) if trains else evaluation_needs(config)
        code = 0
        communicator = everyone.Split(int(trains), world.rank)
        messages = everyone.Dup()
        pretended = self.machine_of_rank
        number_ranks(None if trains else members)
        session = start(
            communicator=communicator,
            machine_of_rank=None if pretended is None else [pretended[r] for r in members],
            settings=needs.horovod,
            bn_groups=needs.bn_groups,
        )
        # Cores are shared with the other group's processes on the same machine.
        session = replace(session, cores=world.cores, launcher=world.launcher)
        if not roles.evaluators:
            code = train_in_world(plan, session)
        elif trains:
            assert life.watchdog is not None, "it was started before"
            watchdog, deaths = life.watchdog, Deaths(self.places)

            def died() -> tuple[int, ...]:
                return watchdog.lost() or deaths()

            mailbox = TrainersMailbox(messages, roles.evaluators, died) if world.is_main else None
            code = train_in_world(plan, session, evaluate_concurrently(mailbox))
            if mailbox is not None:
                mailbox.close()
                watchdog.need_all()
                mailbox.look_for_loss()
            dead = mailbox is not None and mailbox.dead
            self.lost = bool(broadcast_object(dead, session, "pipeline.lost"))
        else:
            held = connections_to_pmix(os.environ) if _is_under_srun(world) else []
            may_die(self.places[world.rank], held)
            inbox = EvaluatorsMailbox(messages)
            try:
                serve_requests(plan.config, session, inbox, world)
            except Exception as fault:  # the other evaluators may wait for this one for ever
                if type(fault).__name__ == "HorovodInternalError":
                    time.sleep(_LET_OTHERS_SPEAK_S)  # freed by one that has more to say
                else:
                    LOGGER.error("".join(traceback.format_exception(fault)).rstrip())
                inbox.give_up(f"rank {world.rank}: {reason_of(fault)}")
                stop_horovod()  # which frees them
                inbox.drop_requests()
        stop()
        number_ranks(None)
        if not self.lost:
            messages.Free()
            communicator.Free()
        return code
