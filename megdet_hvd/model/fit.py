"""How far a state dict fits a module, and saying so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from megdet_hvd.errors import UserError

NAMED = 4
"""Mismatches named in a message; the rest are counted."""
COUNTER = "num_batches_tracked"
"""BN's step counter: frozen layers have none, so it may come or go."""


@dataclass(frozen=True)
class Misfit:
    """Names in which a state dict and a module differ, in the module's order."""

    missing: tuple[str, ...]
    """The module has them, the state dict doesn't."""
    unexpected: tuple[str, ...]
    """The other way round."""
    reshaped: tuple[str, ...]
    """Both have them, in different shapes."""

    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.missing + self.unexpected + self.reshaped

    def __bool__(self) -> bool:
        return bool(self.names())


def align_counters(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """``state`` with BN's step counters as ``module`` has them: added as they stand, or dropped."""
    own = module.state_dict()
    aligned = {k: v for k, v in state.items() if not k.endswith(COUNTER) or k in own}
    for name, value in own.items():
        if name.endswith(COUNTER):
            aligned.setdefault(name, value)
    return aligned


def find_misfit(state: Mapping[str, Tensor], module: nn.Module) -> Misfit:
    """Where ``state`` and ``module`` differ."""
    own = module.state_dict()
    return Misfit(
        missing=tuple(k for k in own if k not in state),
        unexpected=tuple(k for k in state if k not in own),
        reshaped=tuple(k for k in own if k in state and own[k].shape != state[k].shape),
    )


def refuse(
    misfit: Misfit, state: Mapping[str, Tensor], module: nn.Module, source: str, fix: str
) -> UserError:
    """The error that names what differs; ``fix`` ends it."""
    own = module.state_dict()
    parts = []
    if misfit.reshaped:
        shown = [
            f"{k} is {tuple(state[k].shape)}, the model has {tuple(own[k].shape)}"
            for k in misfit.reshaped[:NAMED]
        ]
        parts.append(
            f"{len(misfit.reshaped)} of another shape ({'; '.join(shown)}{_more(misfit.reshaped)})"
        )
    if misfit.missing:
        parts.append(f"{len(misfit.missing)} missing ({_names(misfit.missing)})")
    if misfit.unexpected:
        parts.append(f"{len(misfit.unexpected)} that the model lacks ({_names(misfit.unexpected)})")
    return UserError(f"{source} does not fit the model: tensors {', '.join(parts)}; {fix}")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + _more(names)


def _more(names: Sequence[str]) -> str:
    return ", …" if len(names) > NAMED else ""
