"""Starting a detector from somebody's weights: exactly, or for fine-tuning."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from megdet_hvd.config.paths import expand_path
from megdet_hvd.errors import UserError
from megdet_hvd.model.fit import align_counters, find_misfit, refuse
from megdet_hvd.model.weights_file import find_weights, read_content

PREDICTOR = "roi_heads.box_predictor."
"""The layers whose shape follows from the classes."""
OLD_NAMES = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
"""torchvision's own renaming of 2022: weights from before carry the old names."""


def load_exactly(detector: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load all of ``state`` into ``detector``, or nothing: to resume, evaluate and predict.

    Raises:
        UserError: something differs; says what, and names ``source``.
    """
    state = align_counters(modern_names(state), detector)
    misfit = find_misfit(state, detector)
    if misfit:
        fix = (
            "use the configuration it was trained with (it lies in the run folder); to start a "
            "new training from it, set model.init_from"
        )
        raise refuse(misfit, state, detector, source, fix)
    detector.load_state_dict(dict(state))


def load_for_fine_tuning(
    detector: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    other_classes: bool = False,
) -> list[str]:
    """Load ``state``, but leave a predictor that doesn't fit as it is: newly initialised.

    The predictor (``roi_heads.box_predictor.*``, or what ``class_layers`` of the detector begins)
    counts as a whole: its rows belong to classes, so with other classes none of them is kept.

    Args:
        detector: what is loaded into.
        state: the weights.
        source: for messages.
        other_classes: whether the rows are known to belong to other classes, however many.

    Returns:
        The names left new, to be shown; empty if all of ``state`` was loaded.

    Raises:
        UserError: anything else differs; says what, and names ``source``.
    """
    state = align_counters(modern_names(state), detector)
    misfit = find_misfit(state, detector)
    new: list[str] = []
    # A detector of the user's own says so itself.
    predictor = getattr(detector, "class_layers", PREDICTOR)
    if other_classes or any(name.startswith(predictor) for name in misfit.names()):
        own = detector.state_dict()
        new = [name for name in own if name.startswith(predictor)]
        if not new:
            raise UserError(
                f"{source} was trained on other classes, and the detector does not say which of "
                "its layers belong to them: give it an attribute class_layers, the beginning of "
                "their names in its state dict"
            )
        state = {k: v for k, v in state.items() if not k.startswith(predictor)}
        state.update((name, own[name]) for name in new)
        misfit = find_misfit(state, detector)
    if misfit:
        fix = (
            "only the predictor may differ; set the model section to that of these weights "
            "(backbone, norm, fpn_channels, heads)"
        )
        raise refuse(misfit, state, detector, source, fix)
    detector.load_state_dict(dict(state))
    return new


def init_from(detector: nn.Module, file: str, classes: Sequence[str] = ()) -> list[str]:
    """``model.init_from``: :func:`load_for_fine_tuning` from a file, ours or torchvision's.

    Args:
        detector: what is loaded into.
        file: a checkpoint of ours says what its classes are called; others don't.
        classes: the detector's own, in the order of their labels; empty: whatever the file has.
    """
    path = expand_path(file, "model.init_from")
    source = f"model.init_from={path}"
    content = read_content(path, "model.init_from")
    state = find_weights(content, source)
    named = content.get("categories") if isinstance(content, Mapping) else None
    other = bool(classes) and isinstance(named, list | tuple) and tuple(named) != tuple(classes)
    return load_for_fine_tuning(detector, state, source, other_classes=other)


def modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` under the names that today's torchvision uses."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in OLD_NAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = value
    return renamed
