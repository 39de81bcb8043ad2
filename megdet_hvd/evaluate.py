"""``python -m megdet_hvd.evaluate``: COCO's numbers of a checkpoint, alone or under a launcher."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()

from megdet_hvd.cli import make_parser, parse
from megdet_hvd.cluster.rank_log import redirect_output
from megdet_hvd.config.auto_resize import with_resizer_of
from megdet_hvd.config.code_settings import refuse_strangers_code
from megdet_hvd.config.load import config_to_dict, load_config, override
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import STOPPED
from megdet_hvd.job import outcome_notes

if TYPE_CHECKING:
    from megdet_hvd.engine.own_code import OwnCode
    from megdet_hvd.evaluation.trained import Trained
    from megdet_hvd.job.world import World


@dataclass(frozen=True)
class EvaluationPlan:
    """What the command line asks for."""

    trained: "Trained"
    config: Config
    out: Path | None
    own: "OwnCode"
    """Code of the user's own that he has named."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, and return the exit code."""
    redirect_output()
    parser = make_parser(
        "megdet_hvd.evaluate",
        "Measure a detector on validation pictures: the 12 COCO numbers and AP per class. Under "
        "a launcher, such as `horovodrun -np 2 python -m megdet_hvd.evaluate …`, the processes "
        "share the pictures.",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="checkpoint, run folder (its latest one), or weights of torchvision's Faster R-CNN",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with the pictures and settings to evaluate with; without it: those of "
        "training. The model is the checkpoint's in any case",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the detections as COCO results JSON; with several annotation files, "
        "FILE_1, FILE_2, …",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import what the checkpoint names (model.detector=module:name and the like), which "
        "runs it; otherwise only what is named here again",
    )
    found = parse(parser, argv)
    from megdet_hvd.engine.needs import evaluation_needs
    from megdet_hvd.job.life import Program, run_program

    return run_program(
        Program(
            lambda: make_evaluation_plan(
                found.checkpoint,
                found.config,
                found.overrides,
                found.out,
                trust_code=found.trust_code,
            ),
            lambda plan, life: evaluate_in_world(plan, life.world),
            needs=lambda plan: evaluation_needs(plan.config),
            stoppable=True,
        )
    )


def make_evaluation_plan(
    checkpoint: Path,
    config_file: Path | None,
    overrides: Sequence[str],
    out: Path | None,
    *,
    trust_code: bool = False,
) -> EvaluationPlan:
    """Read the checkpoint and the settings.

    ``trust_code``: import what the checkpoint names. Otherwise only what the file or the overrides
    name.

    Raises:
        UserError: a file that can't be used, or a bad setting.
    """
    from megdet_hvd.engine.own_code import find_evaluation_code
    from megdet_hvd.evaluation.trained import read_trained

    trained = read_trained(checkpoint.expanduser())
    config = _no_folder_of(trained.config)
    file = None if config_file is None else load_config(config_file)
    if file is not None:
        config = file.model_copy(update={"model": config.model})
        config = with_resizer_of(config_to_dict(trained.config), config)
    config = override(config, overrides)
    if not trust_code:
        refuse_strangers_code(config, file, overrides, str(trained.path))
    return EvaluationPlan(trained, config, out, find_evaluation_code(config))


def _no_folder_of(config: Config) -> Config:
    """Without a place that the checkpoint, a file from anywhere, names for files of ours.

    Rendered scenes are used where they lie there already, and else rendered into our own cache;
    so is the index of annotation files.
    """
    from megdet_hvd.data.scenes.cache import scenes_folder

    if config.data.index_cache != "off":
        data = config.data.model_copy(update={"index_cache": "auto"})
        config = config.model_copy(update={"data": data})
    if config.data.kind != "scenes" or scenes_folder(config.data.scenes).is_dir():
        return config
    scenes = config.data.scenes.model_copy(update={"cache": "auto"})
    data = config.data.model_copy(update={"scenes": scenes})
    return config.model_copy(update={"data": data})


def evaluate_in_world(plan: EvaluationPlan, world: "World") -> int:
    """Evaluate with all processes of the job; rank 0 prints and writes."""
    import os

    import torch

    from megdet_hvd.cluster.threads import threads_per_process
    from megdet_hvd.data.factory import open_validation
    from megdet_hvd.engine.alike import pictures_fact, require_alike
    from megdet_hvd.evaluation.coco_ap import STATS
    from megdet_hvd.evaluation.evaluate import evaluate_detector
    from megdet_hvd.evaluation.labels import Relabelled, labels_in, unmeasured
    from megdet_hvd.evaluation.measures import own_numbers
    from megdet_hvd.evaluation.results_json import result_files, write_results
    from megdet_hvd.job.agree import together
    from megdet_hvd.job.exchange import barrier
    from megdet_hvd.job.log import LOGGER
    from megdet_hvd.job.stopping import StopRequested
    from megdet_hvd.model.device import pick_device

    torch.set_num_threads(threads_per_process(world.cores, os.environ))
    with together(world, "evaluate.index"):
        index = open_validation(
            plan.config.data,
            is_main=world.local_rank == 0,
            wait=lambda: barrier(world, "evaluate.data"),
            own=plan.own.dataset,
        )
        if plan.out is not None:  # before hours of work, not after
            result_files(plan.out, index.annotation_files)
    require_alike({"validation pictures": pictures_fact(index)}, world, "evaluate")
    with together(world, "evaluate.detector"):
        table = labels_in(index, plan.trained)
        device = pick_device(plan.config.device, world.local_rank, world.local_size)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        built = plan.trained.build(device, plan.config.model, plan.own.detector)
        detector = Relabelled(built, table)
    try:
        found = evaluate_detector(detector, index, plan.config, world)
    except StopRequested as reason:
        text = f"stopped on request ({reason}); the evaluation was broken off and has no result"
        LOGGER.info(text)
        outcome_notes.note(message=text)
        return STOPPED
    if world.is_main:
        steps = plan.trained.iteration
        print(f"{plan.trained.path}" + (f", iteration {steps}" if steps is not None else ""))
        print(f"on {', '.join(str(file) for file in index.annotation_files)}")
        for note in (*index.notes, *unmeasured(index, plan.trained)):
            print(f"note: {note}")
        for doubt in index.doubts:
            print(f"warning: {doubt}")
        if found.dark is not None:
            print(f"warning: {found.dark}")
        print("\n".join(found.result.lines()), flush=True)
        numbers = own_numbers(plan.own.measures, found, STATS)
        if numbers:
            print("your own (evaluation.measures)")
        for name, value in numbers.items():
            print(f"  {name:<32} {value:.3f}", flush=True)
    with together(world, "evaluate.write"):
        if plan.out is not None and world.is_main:
            for file, out in write_results(plan.out, found.numbering, found.found_boxes()):
                print(f"detections on {file} written to {out}", flush=True)
    return 0


if __name__ == "__main__":
    leave(main)
