"""What a run works with: data opened, detector built, run folder made, checkpoint taken up."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megdet_hvd.bn import name_layers
from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.checkpoint.naming import list_checkpoints
from megdet_hvd.checkpoint.recovery import set_damaged_aside
from megdet_hvd.comm.position import go_outside, waiting
from megdet_hvd.config.code_settings import IN_TRAINING, code_named
from megdet_hvd.config.derive import Derived, derive
from megdet_hvd.config.explain import explain
from megdet_hvd.config.gradient_order import gradient_order
from megdet_hvd.config.load import load_config, to_yaml
from megdet_hvd.config.resume_rules import Change, changes
from megdet_hvd.config.schema import Config, DataConfig
from megdet_hvd.config.warnings import warnings
from megdet_hvd.data.factory import DataSets, open_datasets
from megdet_hvd.engine.alike import (
    detector_fact,
    optimizer_fact,
    pictures_fact,
    require_alike,
)
from megdet_hvd.engine.bn_kernels import find_bn_kernels
from megdet_hvd.engine.device import prepare_device
from megdet_hvd.engine.evaluations import Evaluations
from megdet_hvd.engine.fingerprints import boxes_digest, measure
from megdet_hvd.engine.memory import set_recomputation
from megdet_hvd.engine.norms import (
    describe_norm,
    shares_statistics,
    shares_statistics_with_all,
)
from megdet_hvd.engine.own_code import (
    ALL_OURS,
    NOTHING_GIVEN,
    GivenCode,
    OwnCode,
    find_own_code,
)
from megdet_hvd.engine.resumption import filed
from megdet_hvd.engine.run_detector import build_run_detector
from megdet_hvd.engine.run_folder.best import best_ap_of
from megdet_hvd.engine.run_folder.folder import (
    RunFolder,
    check_writable,
    create_run_folder,
    forget_after,
)
from megdet_hvd.engine.state import restore_state
from megdet_hvd.engine.step.optimizer import build_optimizer, make_optimizer
from megdet_hvd.errors import UserError
from megdet_hvd.job.agree import together
from megdet_hvd.job.exchange import barrier, broadcast_object
from megdet_hvd.job.log import LOGGER, log_to_file
from megdet_hvd.job.peer import open_peer_sums
from megdet_hvd.job.world import World, machine_names
from megdet_hvd.run_lock.lock import RunLock
from megdet_hvd.wording import counted, first_of, ranks_in_words

_MACHINES_SHOWN = 4


@dataclass
class Run:
    """Everything a run works with; made by :func:`prepare_run`."""

    config: Config
    world: World
    folder: RunFolder
    device: torch.device
    data: DataSets
    derived: Derived
    detector: nn.Module
    optimizer: Any
    scaler: Any
    shared_statistics: bool
    recomputation: str
    """What of the detector is recomputed, in words."""
    bn_kernels: str | None = None
    """What CGBN's sums run on, in words; None: there is nothing to say."""
    iteration: int = 0
    """Optimizer steps done."""
    saved: int = 0
    """Of these, those that a checkpoint holds."""
    ap: float | None = None
    """Newest mmAP on the validation pictures."""
    measured_at: int | None = None
    """The iteration that ``ap`` was measured at."""
    best_ap: float | None = None
    """Highest so far."""
    evaluation_due: bool = False
    """The evaluation after this iteration is still to be done."""
    stopped: str | None = None
    """Why the run ended before its end, on request."""
    evaluations: Evaluations | None = None
    """Who measures the detector; None: nobody, or not yet."""
    changes: tuple[Change, ...] = ()
    """Settings that are other ones than in the checkpoint that was taken up."""
    compared_after: int = 0
    """An mmAP of this iteration or an earlier one was measured otherwise than it is now."""
    measured_anew: bool = False
    """Whether that is so since this resume."""
    boxes_digest: str = ""
    """See :func:`megdet_hvd.engine.fingerprints.boxes_digest`."""
    boxes_changed: bool = False
    """Whether the boxes are other ones since this resume."""
    filed: dict[str, object] = field(default_factory=dict)
    """See :func:`megdet_hvd.engine.resumption.filed`. Rank 0's; empty elsewhere."""
    own: OwnCode = ALL_OURS
    """What of it is the user's own."""
    losses_of_own: list[str] | None = None
    """What a detector of the user's own calls its losses; None: it is ours."""
    lock: RunLock | None = None
    """Rank 0's hold on the folder; None: other ranks, or nobody else can come."""
    own_checkpoints: set[str] = field(default_factory=set)
    """Names of those that this run wrote or found, on rank 0: no others are ever deleted."""

    @property
    def own_ap(self) -> float | None:
        """The mmAP of the detector as it is now; None: it was not measured."""
        return self.ap if self.measured_at == self.iteration else None

    def still_ours(self) -> None:
        """Before something is written into the folder: rank 0 must still hold it.

        Raises:
            RunError: on rank 0 alone: it was taken for gone, and another process writes there.
        """
        if self.lock is not None:
            self.lock.check()

    @property
    def epoch(self) -> float:
        """Passes over the training pictures so far."""
        return self.iteration * self.config.global_batch / len(self.data.train)


def prepare_run(
    config: Config,
    world: World,
    path: Path,
    *,
    resume: bool,
    anew: bool = False,
    prepared: DataConfig | None = None,
    lock: RunLock | None = None,
    given: GivenCode = NOTHING_GIVEN,
) -> Run:
    """Open the data, build the detector and the run folder. Every process calls it together.

    ``path`` is the run folder; with ``resume``, its latest sound checkpoint is taken up, and with
    ``anew`` it may hold a run without any checkpoint, whose place this one takes. ``prepared``:
    files to read instead of those that ``config`` names, made from them. ``lock``: rank 0's hold
    on the folder, for as long as the run lasts. ``given``: code of the user's own that ``config``
    has the names of, already.

    Raises:
        UserError: on all ranks alike; nothing has been trained.
    """
    go_outside("preparing the run")
    with together(world, "own code"):
        own_code = find_own_code(config, given)
    with together(world, "device"):
        device = prepare_device(config, world)
    if config.bn.carrier == "peer" and shares_statistics(config, world):
        open_peer_sums(world, device)
    with together(world, "data"):
        data = open_datasets(
            prepared or config.data,
            is_main=world.local_rank == 0,
            wait=lambda: barrier(world, "data"),
            own=own_code.dataset,
        )
    sets = {"training pictures": data.train, "validation pictures": data.val}
    facts = {
        what: "none" if index is None else pictures_fact(index) for what, index in sets.items()
    }
    require_alike(facts, world, "data")
    with together(world, "derive"):
        sizes = [len(ranks) for ranks in world.machines]
        derived = derive(config, len(data.train), world.size, sizes)
    state: dict[str, Any] | None = None
    set_aside: list[str] = []
    folder = RunFolder(path)
    detector, losses_of_own, new_layers = build_run_detector(
        config, own_code, data.train.categories, world, device, resume=resume
    )
    made = None
    if own_code.optimizer is not None:  # before there is a folder of a run that can't begin
        with together(world, "optimizer"):
            made = make_optimizer(detector.to(device), config, own_code.optimizer)
    facts = {
        f"model.detector={config.model.detector}, its weights": detector_fact(detector),
        f"model.detector={config.model.detector}, its losses": str(losses_of_own),
        f"learning.optimizer={config.learning.optimizer}, its weights": (
            "ours" if made is None else optimizer_fact(made.param_groups, detector)
        ),
    }
    require_alike(facts, world, "parts")
    with together(world, "folder"):
        if resume and world.is_main:
            check_writable(folder)
            set_damaged_aside(path, set_aside.append, all_of_them=False)
            state = load_checkpoint(path)
            state["best_ap"] = best_ap_of(folder, state["best_ap"])
        elif world.is_main:
            create_run_folder(path, to_yaml(config), anew=anew)
        own = filed(load_config(folder.config)) if world.is_main and folder.config.exists() else {}
    name_layers(detector)
    detector.to(device)
    recomputation = set_recomputation(detector, config, derived, data.train, world, device)
    order = gradient_order(config, shares_statistics(config, world))
    optimizer = build_optimizer(detector, config, hold=order.held, made=made)
    bn_kernels = find_bn_kernels(detector, config, world, device)
    scaled = config.precision == "float16" and device.type == "cuda"
    scaler = torch.amp.GradScaler("cuda") if scaled else None
    run = Run(
        config,
        world,
        folder,
        device,
        data,
        derived,
        detector,
        optimizer,
        scaler,
        shares_statistics_with_all(config, world) and not _has_bn_of_its_own(detector, world),
        recomputation,
        boxes_digest=boxes_digest(data.train),
        filed=own,
        own=own_code,
        losses_of_own=losses_of_own,
        lock=lock,
    )
    if resume:
        with together(world, "checkpoints"):
            if world.is_main:
                found = list_checkpoints(folder.checkpoints)
                run.own_checkpoints = {path.name for path in found}
        _take_up(run, broadcast_object(state, world, "checkpoint"))
    else:
        _same_weights(run)
    if bn_kernels is not None:
        run.bn_kernels = bn_kernels.put_to_use(detector)
    if world.is_main:
        log_to_file(folder.log)
    for text in set_aside:
        LOGGER.warning(f"warning: {text}")
    for layer in new_layers:
        LOGGER.info(f"newly initialised, as model.init_from does not fit it: {layer}")
    return run


def _has_bn_of_its_own(detector: nn.Module, world: World) -> bool:
    """Whether there are BN layers, of one or three dimensions, that CGBN doesn't know."""
    kinds = nn.modules.batchnorm._BatchNorm
    return world.size > 1 and any(
        isinstance(layer, kinds) and not isinstance(layer, nn.BatchNorm2d)
        for layer in detector.modules()
    )


def _same_weights(run: Run) -> None:
    """Every process starts from rank 0's weights, bit for bit."""
    if run.world.size > 1:
        import horovod.torch as hvd

        with waiting("megdet.broadcast.weights", range(run.world.size)):
            hvd.broadcast_parameters(run.detector.state_dict(), root_rank=0)


def _take_up(run: Run, state: dict[str, Any]) -> None:
    with together(run.world, "resume"):
        run.iteration = restore_state(
            state, run.detector, run.optimizer, run.scaler, run.config, run.data.train, run.world
        )
        _check_end(run)
    run.changes = tuple(changes(state["config"], run.config))
    run.saved = run.iteration
    run.ap, run.best_ap = state["ap"], state["best_ap"]
    run.evaluation_due = state.get("evaluation_due", False)
    run.compared_after = state.get("compared_after", 0)
    run.boxes_changed = state.get("taught", run.boxes_digest) != run.boxes_digest
    way = measure(run.config, run.data.val)
    if state.get("measure", way) != way:
        run.ap = run.best_ap = None
        run.compared_after, run.measured_anew = run.iteration - run.evaluation_due, True
    run.measured_at = None if run.ap is None else run.iteration
    if run.world.is_main:
        forget_after(run.folder.metrics, run.iteration, evaluation_due=run.evaluation_due)


def _check_end(run: Run) -> None:
    end = run.derived.end_iteration
    if end < run.iteration:
        raise UserError(
            f"resume: the run would end after iteration {end}, and the checkpoint is of iteration "
            f"{run.iteration}; raise learning.max_iterations={run.config.learning.max_iterations}, "
            f"or let the policy ({run.config.learning.policy}) end later"
        )


def _where(world: World) -> str:
    """`` (n1: ranks 0-7, n2: ranks 8-15)``; nothing where one machine is all."""
    if len(world.hosts) < 2:
        return ""
    named = list(zip(machine_names(world.hosts), world.machines, strict=True))
    told = [f"{name}: {ranks_in_words(ranks)}" for name, ranks in named]
    return f" ({first_of(told, _MACHINES_SHOWN)})"


def announce(run: Run) -> None:
    """The first lines of the log: who takes part, on what, and the batch's arithmetic."""
    world, config, derived = run.world, run.config, run.derived
    LOGGER.info(
        f"{counted(world.size, 'process')} on {counted(len(world.machines), 'machine')}"
        f"{_where(world)}, started by {world.launcher}; device {run.device.type}, "
        f"{counted(torch.get_num_threads(), 'thread')} a process"
    )
    for line in world.horovod:
        LOGGER.info(f"Horovod: {line}")
    LOGGER.info(f"run folder {run.folder.path}")
    for name, index in (("training", run.data.train), ("validation", run.data.val)):
        for line in index.summary() if index is not None else ["none"]:
            LOGGER.info(f"{name}: {line}")
        for doubt in index.doubts if index is not None and world.is_main else ():
            LOGGER.warning(f"warning: {name}: {doubt}")
    if own := ", ".join(f"{key}={name}" for key, name in code_named(config, IN_TRAINING)):
        LOGGER.info(f"your own: {own}")
    for line in explain(config, derived):
        LOGGER.info(line)
    if world.is_main:
        for line in warnings(config, derived):
            LOGGER.warning(f"warning: {line}")
    images = derived.images_per_process_per_pass
    LOGGER.info(describe_norm(run.detector, config, world, images))
    if run.bn_kernels is not None:
        LOGGER.info(run.bn_kernels)
    if world.size > 1:
        LOGGER.info(str(gradient_order(config, shares_statistics(config, world))))
    LOGGER.info(run.recomputation)
    for change in run.changes if world.is_main else ():
        _tell(change)
    if run.measured_anew:
        LOGGER.info(
            f"mmAP was measured otherwise up to iteration {run.compared_after}: best.pt is chosen "
            "among later ones"
        )
    if run.boxes_changed and world.is_main:
        LOGGER.warning(
            "warning: the training pictures have other boxes than when the checkpoint was written "
            "(were the annotation files, or settings that boxes depend on, changed?); training "
            "goes on with those of now"
        )
    if run.iteration:
        LOGGER.info(f"carrying on after iteration {run.iteration} (epoch {run.epoch:.2f})")


def _tell(change: Change) -> None:
    """What becomes of a setting that was changed for this resume."""
    if change.rule.answer == "no effect":
        LOGGER.warning(f"warning: {change}, which has no effect: {change.rule.words}")
    else:
        LOGGER.info(f"{change}: {change.rule.words}")
