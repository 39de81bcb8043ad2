"""What a checkpoint holds of a run, and how a run takes it up again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from megdet_hvd.bn.running import averaged_running_statistics, running_buffers
from megdet_hvd.config.load import config_to_dict
from megdet_hvd.config.resume_rules import refuse_changes
from megdet_hvd.config.schema import Config
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.engine.fingerprints import order_of_pictures
from megdet_hvd.engine.norms import sharing_of
from megdet_hvd.engine.step.optimizer import built_settings, load_optimizer
from megdet_hvd.errors import UserError
from megdet_hvd.job.exchange import gather_on_main
from megdet_hvd.job.world import World
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.draw_versions import FIRST_DRAW, draw_of
from megdet_hvd.model.initialise import load_exactly
from megdet_hvd.model.kernels import begun_with, go_on_with


def capture_state(
    detector: nn.Module,
    optimizer: Any,
    scaler: Any,
    config: Config,
    data: ImageIndex,
    world: World,
    *,
    iteration: int,
    ap: float | None,
    best_ap: float | None,
    shared_statistics: bool,
    evaluation_due: bool = False,
) -> dict[str, Any]:
    """The state after ``iteration`` steps. Every process calls it together.

    The model's running statistics are averaged over the machines; each process's own are kept
    beside it, so that a resumed run goes on from them. What differs between processes is rank 0's
    to know, who writes the file; None elsewhere. ``evaluation_due``: the evaluation after
    this iteration was broken off, and is to be made up for.
    """
    groups = [list(group) for group in sharing_of(config)(world.machines)]
    statistics = None if shared_statistics else _statistics_of_all(detector, groups, world)
    random = gather_on_main(random_state(), world, "random")
    with averaged_running_statistics(detector, world.size, shared_statistics):
        model = {
            name: value.detach().cpu().clone() for name, value in detector.state_dict().items()
        }
    return {
        "config": config_to_dict(config),
        "categories": list(data.categories),
        "category_ids": list(data.category_ids),
        "model": model,
        "kernels": begun_with(detector),
        "optimizer": optimizer.state_dict(),
        "optimizer_built": built_settings(optimizer),
        "scaler": None if scaler is None else scaler.state_dict(),
        "iteration": iteration,
        "images_seen": iteration * config.global_batch,
        "images_per_epoch": len(data),
        "pictures": order_of_pictures(data),
        "ap": ap,
        "best_ap": best_ap,
        "evaluation_due": evaluation_due,
        "random": random,
        "running_statistics": statistics,
        "bn_groups": groups,
        "world": world.size,
        "draw_version": detector.draw_version if isinstance(detector, Detector) else None,
    }


def _statistics_of_all(
    detector: nn.Module, groups: Sequence[Sequence[int]], world: World
) -> list[list[torch.Tensor]] | None:
    """Running statistics of each process, on rank 0; None elsewhere.

    Those of a group hold the same, but for BN layers that CGBN does not know. What is the same is
    one tensor here, and so is written once.
    """
    own = [buffer.detach().cpu().clone() for buffer in running_buffers(detector)]
    found = gather_on_main(own, world, "running_statistics")
    if found is None:
        return None
    first_of = {rank: group[0] for group in groups for rank in group}
    return [
        [
            first if torch.equal(first, mine) else mine
            for first, mine in zip(found[first_of[rank]], those, strict=True)
        ]
        for rank, those in enumerate(found)
    ]


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's generators in this process.

    Of CUDA's only where it runs: to ask would start it, and take memory on the first GPU for every
    process of a job that computes on CPUs.
    """
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_state(
    state: dict[str, Any],
    detector: nn.Module,
    optimizer: Any,
    scaler: Any,
    config: Config,
    data: ImageIndex,
    world: World,
) -> int:
    """Put a checkpoint's state back, the same on every process; returns the iteration.

    Weights, momentum and gradient scaler do not depend on the number of processes; what
    configuration sets of the optimizer stays as it was built. Running
    statistics are each process's own where the groups that share them are as before, else the
    average of all. torch's generators go on where the number of processes is as before; with
    another they start anew, which changes nothing: pictures, augmentation and samples are drawn
    from the seed, the epoch and the picture, in the way that the run began with.

    Raises:
        UserError: the checkpoint belongs to other data, another batch or another model; a
            setting was changed that a resumed run keeps.
    """
    _check_same_run(state, config, data)
    if isinstance(detector, Detector):
        detector.draw_version = state.get("draw_version", FIRST_DRAW)
        draw_of(detector.draw_version)
    load_exactly(detector, state["model"], "the checkpoint to carry on from")
    go_on_with(detector, state.get("kernels"))
    load_optimizer(optimizer, state["optimizer"], state.get("optimizer_built"))
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    if state["world"] == world.size:
        own = own_statistics(state, [list(g) for g in sharing_of(config)(world.machines)], world)
        if own is not None:
            for buffer, kept in zip(running_buffers(detector), own, strict=True):
                buffer.copy_(kept)
        random = state["random"][world.rank]
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(random["cuda"])
    return int(state["iteration"])


def own_statistics(
    state: dict[str, Any], groups: list[list[int]], world: World
) -> list[torch.Tensor] | None:
    """This process's own running statistics; None: it goes on from the average of all.

    ``groups`` share BN statistics now. Processes of one group must hold the same, so those of
    other groups, other machines or another ``bn.size`` say, are of no use.
    """
    kept = state["running_statistics"]
    if kept is None or state.get("bn_groups") != groups:
        return None
    own: list[torch.Tensor] = kept[world.rank]
    return own


def _check_same_run(state: dict[str, Any], config: Config, data: ImageIndex) -> None:
    refuse_changes(state["config"], config)
    pairs = [
        ("number of training pictures", state["images_per_epoch"], len(data)),
        ("list of classes", *_first_difference(state["categories"], list(data.categories))),
    ]
    for name, old, new in pairs:
        if old != new:
            raise UserError(
                f"resume: the {name} was {old} in the checkpoint and is {new} now; a resumed run "
                f"keeps them. {_ANEW}"
            )
    order = order_of_pictures(data)
    if state.get("pictures", order) != order:
        raise UserError(
            f"resume: the {len(data)} training pictures have other ids, or another order, than "
            "those of the checkpoint, so that this epoch would go on with the wrong ones; give "
            f"the same annotation files in data.train. {_ANEW}"
        )


def _first_difference(before: list[str], now: list[str]) -> tuple[str, str]:
    """Of two lists of classes, in words that differ where the lists do."""
    for label, (old, new) in enumerate(zip(before, now, strict=False), 1):
        if old != new:
            return f"{len(before)} long with {old!r} in place {label}", f"{len(now)} with {new!r}"
    return f"{len(before)} long", f"{len(now)} long"


_ANEW = "To start anew from its weights, pass model.init_from=CHECKPOINT"
