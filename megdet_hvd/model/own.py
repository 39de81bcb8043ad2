"""A detector of the user's own: made, given our normalisation, and tried out before training.

Whatever turns a batch into losses of each picture, and into detections, is a detector
(:class:`OwnDetector`). Its BN layers are replaced, as ``model.norm`` says; so Cross-GPU BN,
resuming and evaluation work with it as with ours.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from megdet_hvd.config.schema import Config, ModelConfig
from megdet_hvd.data.batch import Batch, Detections, ImageInfo, Target
from megdet_hvd.errors import UserError
from megdet_hvd.model.norm import NormFactory, frozen_copy

_TRIAL = (96, 128)
"""Height and width of the pictures that a detector is tried out on, pixels."""
_TAKEN = (
    *("kind", "iteration", "epoch", "images_seen", "skipped", "loss", "rate"),
    *("images_per_s", "step_s", "data_s"),
)
"""Names in a line of metrics that no loss may have."""
_TAKEN_BEGINNINGS = ("split_", "slowest_rank", "rpn_foreground", "box_foreground")
"""How more of them begin."""


class OwnDetector(Protocol):
    """An ``nn.Module`` that computes losses in training, and detections in evaluation.

    It may also have, each of no consequence where it is absent:

    - ``class_layers``, the beginning of the state-dict names whose rows belong to classes: with
      ``model.init_from`` and other classes these are left new.
    - ``recompute_parts(mode)``, the modules that ``memory.checkpoint`` (``blocks`` or ``stages``)
      computes again, each as one piece; without it: torchvision's residual blocks, or stages.
    - ``sample_balance``, a :class:`megdet_hvd.model.balance.SampleBalance` of the newest forward.
    """

    def __call__(self, batch: Batch, /) -> dict[str, Tensor] | list[Detections]:
        """``batch.images`` are (B, 3, H, W) uint8, contiguous, each top left on a canvas.

        B may be 0.

        Returns:
            In training a loss of each picture, (B,) with gradients, by name; the same names each
            time. Normalised by that picture alone: the loss of a step is the mean over all pictures
            of the global batch, whichever process holds them. In evaluation
            :class:`megdet_hvd.data.batch.Detections` of each picture, in pixels of the original one
            (:func:`megdet_hvd.model.detector.in_original_pixels`), labels 1…K.
        """
        ...


class DetectorFactory(Protocol):
    """Makes a detector."""

    def __call__(self, num_classes: int, config: Config, pretrained: bool, /) -> nn.Module:
        """Called on every rank, the first of each machine before the others (for downloads).

        Args:
            num_classes: without background; labels are 1…num_classes.
            config: of the run, resolved. Of ``config.model`` the settings ``norm``, ``norm_eps``,
                ``norm_momentum`` and ``init_from`` are applied to what is returned; the rest is of
                Faster R-CNN, and free to be read.
            pretrained: False where weights of a checkpoint follow, so that none need be fetched.

        Returns:
            An :class:`OwnDetector`, on the CPU. torch's generator is seeded with ``config.seed``.
        """
        ...


def build_own_detector(
    factory: DetectorFactory,
    config: Config,
    num_classes: int,
    norm_layer: NormFactory,
    *,
    pretrained: bool,
) -> nn.Module:
    """The detector that ``factory`` makes, with layers of ``norm_layer`` in the place of its BN.

    It is on the CPU, in training mode. The global generator is neither read nor moved.

    Raises:
        UserError: the factory makes something else, or layers that ``model.norm`` can't replace.
    """
    name = config.model.detector
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        made = factory(num_classes, config, pretrained)
    if not isinstance(made, nn.Module):
        raise UserError(
            f"model.detector={name} gives a {type(made).__name__}; return a torch.nn.Module that "
            "turns a batch into losses of each picture, or into detections (docs/extending.md)"
        )
    lazy = [key for key, one in made.named_parameters() if isinstance(one, UninitializedParameter)]
    if lazy:
        raise UserError(
            f"model.detector={name} has weights whose shape is still open ({lazy[0]}, of a lazy "
            "layer); give their sizes, or run it once on noise before you return it"
        )
    replace_norms(made, config.model, norm_layer)
    made.register_forward_pre_hook(_plane_by_plane)
    return made.train()


def _plane_by_plane(detector: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """What it is called with, its pictures contiguous.

    The loader's are in channels_last order: views of a user's code may not fit them, and its layers
    would take that order over, with other roundings.
    """
    del detector
    return tuple(
        replace(one, images=one.images.contiguous()) if isinstance(one, Batch) else one
        for one in given
    )


def replace_norms(module: nn.Module, model: ModelConfig, norm_layer: NormFactory) -> None:
    """Put layers of ``norm_layer`` in the place of every BN layer, in place.

    Weights, running statistics and state-dict keys stay; frozen layers do, too.

    Raises:
        UserError: torch's synchronised BN, which shares statistics by other means; BN layers of
            compiled script, which are out of reach, or that do more than BN, which would be lost;
            BN layers with ``model.norm=none``.
    """
    for path, child in module.named_modules():
        if problem := _why_it_stays(child):
            raise UserError(
                f"model.detector={model.detector} has the BN layer {path}, which {problem}"
            )
        if isinstance(child, nn.SyncBatchNorm):
            raise UserError(
                f"model.detector={model.detector} has layers of torch.nn.SyncBatchNorm, which "
                "needs torch.distributed; use torch.nn.BatchNorm2d, and model.norm=cgbn shares its "
                "statistics"
            )
        if isinstance(child, nn.BatchNorm2d) and model.norm == "none":
            raise UserError(
                f"model.norm=none with model.detector={model.detector}, which has BN layers; "
                "leave them out there, or set model.norm=cgbn, bn or frozen"
            )
    done: dict[nn.Module, nn.Module] = {}
    for parent in list(module.modules()):
        for name, layer in list(parent._modules.items()):
            if isinstance(layer, nn.BatchNorm2d):  # one that stands in two places stays one
                if layer not in done:
                    done[layer] = _replaced(layer, model, norm_layer)
                parent._modules[name] = done[layer]


def _why_it_stays(layer: nn.Module) -> str | None:
    """Why a layer of BN can't be replaced; None: it can, or is none."""
    if isinstance(layer, torch.jit.ScriptModule):
        compiled = "BatchNorm" in layer.original_name and "Frozen" not in layer.original_name
        return (
            "torch.jit has compiled, so that model.norm can't replace it; leave out "
            "torch.jit.script and torch.jit.trace around BN layers"
            if compiled
            else None
        )
    kind = type(layer)
    if not isinstance(layer, nn.BatchNorm2d) or kind.__module__.startswith("megdet_hvd."):
        return None
    if kind.forward is not nn.BatchNorm2d.forward or "forward" in layer.__dict__:
        return (
            f"is a {kind.__name__} with a forward() of its own, which would be lost; put what it "
            "does beside BN into a layer behind a torch.nn.BatchNorm2d"
        )
    if any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)):
        return "has hooks, which would be lost; set them on the layer around it"
    return None


def _replaced(layer: nn.BatchNorm2d, model: ModelConfig, norm_layer: NormFactory) -> nn.Module:
    replaced: nn.Module
    if model.norm == "frozen":
        replaced = frozen = frozen_copy(layer)
        frozen.eps = model.norm_eps
        return replaced
    made: Any = norm_layer(layer.num_features)
    made.affine, made.track_running_stats = layer.affine, layer.track_running_stats
    made.weight, made.bias = layer.weight, layer.bias
    made.running_mean, made.running_var = layer.running_mean, layer.running_var
    made.num_batches_tracked = layer.num_batches_tracked
    made.train(layer.training)
    replaced = made
    return replaced


def try_out(detector: nn.Module, config: Config, num_classes: int, *, empty: bool) -> list[str]:
    """A forward pass in training and one in evaluation, on made-up pictures; the names of losses.

    The names come sorted: a dict made from a set has another order in each process.

    The detector is as it was afterwards, in training mode. Its layers must not communicate.

    Args:
        detector: on the CPU, in training mode.
        config: of the run; with ``data.keep_empty`` one of the pictures has no boxes.
        num_classes: without background.
        empty: whether a process of the run may have no pictures: that is tried too.

    Raises:
        UserError: what it gives is not what training or evaluation need.
        Exception: whatever the detector itself raises.
    """
    told = f"model.detector={config.model.detector}"
    sizes = (num_classes, 0 if config.data.keep_empty else 1)
    with _as_it_was(detector), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        names = _check_losses(detector(_made_up(sizes, True)), told, len(sizes))
        if empty:
            try:
                again = _check_losses(detector(_made_up((), True)), told, 0)
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"{told} fails on a batch without pictures ({type(error).__name__}: {error}), "
                    "which a process of this run may have: its layers must run on empty tensors "
                    "there, with losses of shape (0,); or set data.unreadable_images=stop"
                ) from error
            if again != names:
                raise UserError(f"{told} gives the losses {again} without pictures, not {names}")
        detector.eval()
        with torch.no_grad():
            _check_detections(detector(_made_up(sizes, False)), told, len(sizes), num_classes)
    return names


def checked_losses(losses: Any, names: list[str], count: int) -> dict[str, Tensor]:
    """The losses of a step, where they are those that the detector gave when it was tried out.

    Raises:
        TypeError: they are not.
    """
    if not isinstance(losses, Mapping) or sorted(losses) != names:
        given = list(losses) if isinstance(losses, Mapping) else type(losses).__name__
        raise TypeError(f"the detector gives the losses {given}, where it gave {names} before")
    for name in names:
        value = losses[name]
        if tuple(value.shape) != (count,):
            raise TypeError(
                f"the detector's loss {name} has the shape {tuple(value.shape)}, not one value for "
                f"each of {count} pictures"
            )
    return {name: losses[name] for name in names}


@contextmanager
def _as_it_was(detector: nn.Module) -> Iterator[None]:
    """Around a trial: weights, buffers and modes are put back."""
    state = copy.deepcopy(detector.state_dict())
    passing = [  # those that are in no state dict
        (part, name, part._buffers[name], copy.deepcopy(part._buffers[name]))
        for part in detector.modules()
        for name in part._non_persistent_buffers_set
        if name in part._buffers
    ]
    modes = [(part, part.training) for part in detector.modules()]
    try:
        yield
    finally:
        detector.load_state_dict(state)
        for part, name, buffer, kept in passing:
            if buffer is not None and kept is not None:
                with torch.no_grad():
                    buffer.copy_(kept)
            part._buffers[name] = buffer
        for part, training in modes:
            part.training = training


def _made_up(labels: tuple[int, ...], with_targets: bool) -> Batch:
    """Pictures of noise, each with a box of the label given; 0: without one."""
    height, width = _TRIAL
    images = torch.randint(0, 256, (len(labels), 3, height, width), dtype=torch.uint8)
    infos = tuple(
        ImageInfo(k, 0, k, 0, original_size=(2 * height, 2 * width), size=_TRIAL)
        for k in range(len(labels))
    )
    box = torch.tensor([[8.0, 16.0, 56.0, 80.0]])
    targets = tuple(
        Target(box if label else box[:0], torch.tensor([label] if label else [], dtype=torch.int64))
        for label in labels
    )
    return Batch(images, infos, targets if with_targets else ())


def _check_losses(losses: Any, told: str, count: int) -> list[str]:
    if not isinstance(losses, Mapping) or not losses:
        raise _not_losses(told, count, f"a {type(losses).__name__} without any")
    for name, value in losses.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _not_losses(told, count, f"{name!r}: a {type(value).__name__}")
        if name in _TAKEN or name.startswith(_TAKEN_BEGINNINGS):
            raise UserError(
                f"{told} calls a loss {name}, which is another number in the metrics; rename it"
            )
        if tuple(value.shape) != (count,):
            raise _not_losses(told, count, f"{name} of shape {tuple(value.shape)}")
        if not value.is_floating_point() or not value.requires_grad:
            raise UserError(
                f"{told} gives a loss {name} without gradients; compute it from the outputs of "
                "layers that are trained, also where it is zero (outputs.sum() * 0)"
            )
    return sorted(losses)


def _not_losses(told: str, count: int, given: str) -> UserError:
    return UserError(
        f"{told} gives, for {count} pictures in training, {given}; return a dict of name to "
        "losses, one for each picture: tensors of shape (B,)"
    )


def _check_detections(found: Any, told: str, count: int, num_classes: int) -> None:
    if not isinstance(found, list):
        raise _not_detections(told, count, f"a {type(found).__name__}")
    if len(found) != count:
        raise _not_detections(told, count, f"a list of {len(found)}")
    for one in found:
        if not isinstance(one, Detections):
            raise _not_detections(told, count, f"a list with a {type(one).__name__}")
        parts = (one.boxes, one.scores, one.labels)
        if not all(isinstance(value, Tensor) for value in parts):
            kinds = ", ".join(type(value).__name__ for value in parts)
            raise UserError(f"{told} gives boxes, scores and labels that are {kinds}, not tensors")
        number = len(one.scores)
        shapes = [tuple(value.shape) for value in (one.boxes, one.scores, one.labels)]
        if shapes != [(number, 4), (number,), (number,)]:
            raise UserError(
                f"{told} gives boxes, scores and labels of shapes {shapes}; they must be (n, 4), "
                "(n,) and (n,)"
            )
        labels = one.labels.tolist()
        if one.labels.is_floating_point() or any(not 1 <= k <= num_classes for k in labels):
            raise UserError(
                f"{told} gives the labels {sorted(set(labels))[:5]}; they must be whole numbers "
                f"from 1 to {num_classes}, the number of classes"
            )


def _not_detections(told: str, count: int, given: str) -> UserError:
    return UserError(
        f"{told} gives, for {count} pictures in evaluation, {given}; return a list of "
        "megdet_hvd.data.batch.Detections, one for each picture"
    )
