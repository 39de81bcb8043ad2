"""SGD as in §4, or an optimizer of the user's own; Horovod averages the gradients."""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from megdet_hvd.checkpoint.file import check_plain
from megdet_hvd.comm.position import waiting
from megdet_hvd.config.schema import Config
from megdet_hvd.engine.step.compression import Wire, wire_for
from megdet_hvd.errors import UserError


class OptimizerFactory(Protocol):
    """Makes an optimizer of the user's own."""

    def __call__(self, groups: list[dict[str, Any]], config: Config, /) -> torch.optim.Optimizer:
        """Called on every rank with the same, once the detector is on its device.

        Args:
            groups: what torch's optimizers take: ``params`` and ``weight_decay`` of each group, as
                ``learning.weight_decay`` and ``decay_bn`` have it. All of them must be trained,
                the same on every rank; they may be grouped otherwise.
            config: of the run, resolved; ``config.learning`` has the settings of learning.

        Returns:
            An optimizer of these parameters. The schedule sets ``lr`` of every group before each
            step, and ``step()`` is called without a closure. Gradients are averaged by then.
        """
        ...


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


def make_optimizer(
    model: nn.Module, config: Config, own: OptimizerFactory | None = None
) -> torch.optim.Optimizer:
    """SGD over what trains of ``model``, or the optimizer that ``own`` makes. No communication.

    Raises:
        UserError: nothing is left to train, or ``own`` gives something else than an optimizer of
            these parameters.
    """
    learning = config.learning
    groups = parameter_groups(model, learning.weight_decay, learning.decay_bn)
    if not groups[0]["params"]:
        raise UserError("no parameter is left to train: lower model.frozen_stages")
    if own is None:
        return torch.optim.SGD(groups, lr=learning.base_rate, momentum=learning.momentum)
    wanted = [parameter for group in groups for parameter in group["params"]]
    made = own(groups, config)
    if not isinstance(made, torch.optim.Optimizer):
        raise UserError(
            f"learning.optimizer={learning.optimizer} gives a {type(made).__name__}; return a "
            "torch.optim.Optimizer over the groups that it is given"
        )
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(
            f"learning.optimizer={learning.optimizer} gives a {type(made).__name__}, which "
            "computes the loss again within a step (a closure), and gradients are averaged once "
            "a step: take an optimizer whose step() needs none"
        )
    check_savable(made, config)
    given = [parameter for group in made.param_groups for parameter in group["params"]]
    if sorted(map(id, given)) != sorted(map(id, wanted)):
        raise UserError(
            f"learning.optimizer={learning.optimizer} gives an optimizer of {len(given)} "
            f"parameters, and {len(wanted)} are to be trained; it must be over all those in the "
            "groups that it is given, and no others"
        )
    return made


def check_savable(optimizer: Any, config: Config) -> None:
    """That its state can be in a checkpoint; so, too, after a step, which adds most of it.

    Raises:
        UserError: it can't.
    """
    try:
        check_plain(optimizer.state_dict(), "optimizer")
    except TypeError as error:
        raise UserError(
            f"learning.optimizer={config.learning.optimizer} could not be saved in a checkpoint: "
            f"{error}; keep tensors, numbers and texts in its groups and its state"
        ) from error


def build_optimizer(
    model: nn.Module,
    config: Config,
    *,
    hold: bool = True,
    made: torch.optim.Optimizer | None = None,
) -> Any:
    """``hvd.DistributedOptimizer`` around SGD. Every process calls it together, ``hold`` equal.

    ``made``: an optimizer of the user's own in SGD's place, see :func:`make_optimizer`.

    With ``hold``, gradients go out as one group once all are ready: a BN message never waits
    behind a gradient that was ready early. What it gains and costs: docs/benchmarks.md.
    Without, each goes as soon as it is ready, beside the rest of the backward pass. Which it is:
    :func:`megdet_hvd.config.gradient_order.gradient_order`.

    Raises:
        UserError: nothing is left to train.
    """
    import horovod.torch as hvd

    if made is None:
        wrapped = make_optimizer(model, config)
    else:
        built = _settings(made.param_groups)
        wrapped = _kept_as_made(made)
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    wire = wire_for(config.horovod, hvd.size())
    with waiting("megdet.optimizer", range(hvd.size())):  # groups are agreed on with rank 0
        optimizer = hvd.DistributedOptimizer(
            wrapped,
            named_parameters=trainable,
            compression=wire,
            op=hvd.Sum,  # the wire makes it the mean
            backward_passes_per_step=config.learning.accumulation,
            groups=1 if hold else None,
        )
    if made is not None:
        optimizer.megdet_built = built
    _finish_with(optimizer, wire)
    return optimizer


def _finish_with(optimizer: Any, wire: Wire) -> None:
    """``optimizer.synchronize()`` ends with the means, whoever calls it."""
    synchronize = optimizer.synchronize

    def and_finish() -> None:
        synchronize()
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        wire.finish([p.grad for p in parameters if p.requires_grad and p.grad is not None])

    optimizer.synchronize = and_finish


def _kept_as_made(made: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """``made``, such that Horovod's wrapper takes it over as it is.

    The wrapper is a subclass of the optimizer's class, which it makes anew by ``__init__(groups)``:
    arguments beside the groups, and whatever ``__init__`` keeps outside of them, would be lost.
    """

    def take_over(wrapper: torch.optim.Optimizer, _: Any) -> None:
        wrapper.__dict__.update(made.__dict__)

    kind = type(made)
    made.__class__ = type(kind.__name__, (kind,), {"__init__": take_over})
    return made


def built_settings(optimizer: Any) -> list[dict[str, Any]] | None:
    """What an optimizer of the user's own was built with, by group; None for SGD."""
    found: list[dict[str, Any]] | None = getattr(optimizer, "megdet_built", None)
    return found


def _settings(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings of each group, plain values only: what else there is is no setting."""
    return [
        {name: value for name, value in group.items() if name != "params" and _is_plain(value)}
        for group in groups
    ]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def load_optimizer(
    optimizer: Any, state: dict[str, Any], built_then: Sequence[dict[str, Any]] | None = None
) -> None:
    """Take up the momentum in ``state``; what configuration sets stays as ``optimizer`` was built.

    torch's ``load_state_dict`` brings back all of a group: its weight decay, momentum and whatever
    else it was once built with. An optimizer of the user's own may keep state among its settings
    (a count of steps, an estimated rate): there, what it was built with then (``built_then``) and
    now says which is which. Settings built alike go on as they were saved.

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
    groups = optimizer.param_groups
    own = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    ours = built_settings(optimizer) is None
    if not ours:
        then = built_then or [{} for _ in groups]
        own = [
            {name: value for name, value in now.items() if name in old and old[name] != value}
            for now, old in zip(_settings(groups), then, strict=True)
        ]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
        if ours and not group["momentum"]:
            for parameter in group["params"]:  # it would lie there until a later resume asks for it
                optimizer.state.pop(parameter, None)


def _sizes(groups: list[int]) -> str:
    return " + ".join(map(str, groups))


def set_rate(optimizer: Any, rate: float) -> None:
    """Give every parameter group the learning rate of this iteration."""
    for group in optimizer.param_groups:
        group["lr"] = rate
