"""What an evaluating rank does: wait for a checkpoint, measure it with the others, report."""

import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from megdet_hvd.cluster.threads import threads_per_process
from megdet_hvd.comm.position import go_outside
from megdet_hvd.config.schema import Config
from megdet_hvd.data.factory import open_validation
from megdet_hvd.engine.alike import pictures_fact, require_alike
from megdet_hvd.engine.own_code import find_evaluation_code
from megdet_hvd.engine.run_folder.best_effort import BestEffort, reason_of
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.engine.run_folder.pictures import draw_found
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.evaluation.evaluate import contained, evaluate_detector
from megdet_hvd.evaluation.labels import Relabelled, labels_in
from megdet_hvd.evaluation.measures import own_numbers
from megdet_hvd.evaluation.trained import read_trained
from megdet_hvd.job.agree import is_agreed, together
from megdet_hvd.job.exchange import barrier
from megdet_hvd.job.log import LOGGER
from megdet_hvd.job.stopping import StopRequested
from megdet_hvd.job.world import World
from megdet_hvd.model.device import pick_device
from megdet_hvd.pipeline.mailbox import (
    EvaluationReply,
    EvaluationRequest,
    EvaluatorsMailbox,
    NoResult,
)


def serve_requests(
    config: Config, world: World, mailbox: EvaluatorsMailbox, everyone: World
) -> None:
    """Evaluate one checkpoint after the other until there are no more. Evaluators call it together.

    Where the job shall stop, the evaluation is broken off, and what is still ordered is left to the
    run that carries on. Every request is answered, also then. So is one that fails, whatever the
    reason: a checkpoint that can't be read, a GPU without room. Training goes on.

    ``everyone`` is all of the program: this process's place among those of its machine says which
    GPU is its own.
    """
    torch.set_num_threads(threads_per_process(world.cores, os.environ))
    evaluate = None
    stopped = False
    while (request := mailbox.next_request()) is not None:
        result: EvaluationReply | NoResult | None = None
        try:
            if evaluate is None and not stopped:  # late: no second reading beside the trainers'
                evaluate = _evaluation(config, world, everyone, request.path)
            if evaluate is not None and not stopped:
                result = evaluate(request)
        except StopRequested:
            stopped = True
        except Exception as error:
            if world.size > 1 and not is_agreed(error):
                raise  # the others are waiting for this one
            if not isinstance(error, UserError | StorageError) or error.__cause__ is not None:
                LOGGER.warning("".join(traceback.format_exception(error)).rstrip())
            result = NoResult(request, _reason(error, everyone.rank - world.rank))
        if world.is_main:
            mailbox.reply(result)


def _reason(error: Exception, first: int) -> str:
    """Why there is no result; ranks as all of the program count them, evaluators from ``first``."""
    text = str(error) if isinstance(error, UserError | StorageError) else reason_of(error)
    named = re.match(r"rank (\d+): ", text)
    return text if named is None else f"rank {first + int(named[1])}: {text[named.end() :]}"


def _evaluation(
    config: Config, world: World, everyone: World, first: Path
) -> Callable[[EvaluationRequest], EvaluationReply]:
    """What measures one checkpoint; the ``first`` says which classes the run has."""
    with together(world, "evaluators.own"), contained():
        own = find_evaluation_code(config)
    with together(world, "evaluators.classes"), contained():
        used = read_trained(first).used()
    with together(world, "evaluators.index"), contained():
        index = open_validation(
            config.data,
            is_main=world.local_rank == 0,
            wait=lambda: barrier(world, "evaluators.data"),
            known=(used, f"checkpoint {first}"),
            own=own.dataset,
        )
    require_alike({"validation pictures": pictures_fact(index)}, world, "evaluators")
    with together(world, "evaluators.device"), contained():
        device = pick_device(config.device, everyone.local_rank, everyone.local_size)
        if device.type == "cuda":
            torch.cuda.set_device(device)

    best_effort = BestEffort("the picture of detections")

    def evaluate(request: EvaluationRequest) -> EvaluationReply:
        go_outside("evaluation")
        with together(world, "evaluators.detector"), contained():
            trained = read_trained(request.path)
            built = trained.build(device, config.model, own.detector)
            detector = Relabelled(built, labels_in(index, trained))
        found = evaluate_detector(detector, index, config, world, survives=True)
        if world.is_main:
            draw_found(index, found, folder_of(request.path).detections, best_effort)
        result = found.result
        numbers = result.as_metrics()
        if world.is_main:
            taken = ("kind", "iteration", "epoch", *numbers)
            numbers |= own_numbers(own.measures, found, taken)
        return EvaluationReply(request, result.ap, result.ap50, result.images, numbers, found.dark)

    return evaluate


def folder_of(checkpoint: Path) -> RunFolder:
    """The run that a checkpoint belongs to."""
    return RunFolder(checkpoint.parent.parent)
