"""SGD as in §4, its gradients averaged over all processes by Horovod."""

from typing import Any

import torch
from torch import nn

from megdet_hvd.comm.position import waiting
from megdet_hvd.config.schema import Config
from megdet_hvd.engine.step.compression import wire_for
from megdet_hvd.errors import UserError


def parameter_groups(model: nn.Module, weight_decay: float, decay_bn: bool) -> list[dict[str, Any]]:
    """Trainable parameters, with λ/2·‖w‖² of eq. (1) on all of them, or on all but BN's."""
    bn = {
        id(parameter)
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for parameter in layer.parameters(recurse=False)
    }
    trainable = [p for p in model.parameters() if p.requires_grad]
    if decay_bn:
        return [{"params": trainable, "weight_decay": weight_decay}]
    decayed = [p for p in trainable if id(p) not in bn]
    rest = [p for p in trainable if id(p) in bn]
    groups = [{"params": decayed, "weight_decay": weight_decay}]
    return [*groups, {"params": rest, "weight_decay": 0.0}] if rest else groups


def build_optimizer(model: nn.Module, config: Config, *, hold: bool = True) -> Any:
    """``hvd.DistributedOptimizer`` around SGD. Every process calls it together, ``hold`` equal.

    With ``hold``, gradients go out as one group once all are ready: a BN message never waits
    behind a gradient that was ready early. What it gains and costs: docs/benchmarks.md.
    Without, each goes as soon as it is ready, beside the rest of the backward pass. With
    ``deterministic`` they are held in any case: fusion is off then, so that each is summed by
    itself, and the order in which they are sent changes no bit.

    Raises:
        UserError: nothing is left to train.
    """
    import horovod.torch as hvd

    learning = config.learning
    groups = parameter_groups(model, learning.weight_decay, learning.decay_bn)
    if not groups[0]["params"]:
        raise UserError("no parameter is left to train: lower model.frozen_stages")
    sgd = torch.optim.SGD(groups, lr=learning.base_rate, momentum=learning.momentum)
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    with waiting("megdet.optimizer", range(hvd.size())):  # groups are agreed on with rank 0
        return hvd.DistributedOptimizer(
            sgd,
            named_parameters=trainable,
            compression=wire_for(config.horovod, hvd.size()),
            op=hvd.Sum,  # the wire makes it the mean
            backward_passes_per_step=learning.accumulation,
            groups=1 if hold or config.deterministic else None,
        )


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Take up the momentum in ``state``; what configuration sets stays as ``optimizer`` was built.

    torch's ``load_state_dict`` brings back all of a group: its weight decay, momentum and whatever
    else it was once built with.

    Raises:
        UserError: ``state`` belongs to other parameters, or groups of them.
    """
    had = [len(group["params"]) for group in state["param_groups"]]
    have = [len(group["params"]) for group in optimizer.param_groups]
    if had != have:
        raise UserError(
            f"resume: the optimizer's state in the checkpoint is of {_sizes(had)} parameters, and "
            f"{_sizes(have)} are trained now; go on with the settings (learning.decay_bn, "
            "model.frozen_stages, model.norm) that it was written with"
        )
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
        if not group["momentum"]:
            for parameter in group["params"]:  # it would lie there until a later resume asks for it
                optimizer.state.pop(parameter, None)


def _sizes(groups: list[int]) -> str:
    return " + ".join(map(str, groups))


def set_rate(optimizer: Any, rate: float) -> None:
    """Give every parameter group the learning rate of this iteration."""
    for group in optimizer.param_groups:
        group["lr"] = rate
