"""An optimizer of the user's own: what of it is state, what is a setting, what is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from megdet_hvd.config.load import load_config
from megdet_hvd.engine.step.optimizer import (
    _kept_as_made,
    _settings,
    load_optimizer,
    make_optimizer,
)
from megdet_hvd.errors import UserError

CONFIG = load_config(None, ["learning.optimizer=mine:build"])


class Adaptive(torch.optim.Optimizer):
    """Keeps an estimate among its settings, as some do, and a setting beside them."""

    def __init__(self, groups: Any, lr: float, decay: float, scale: float) -> None:
        super().__init__(groups, {"lr": lr, "estimate": 1.0, "decay": decay})
        self.scale = scale

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["estimate"] *= self.scale


def built(decay: float, *, groups: int = 1) -> Any:
    """As :func:`build_optimizer` leaves it, without Horovod's part."""
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    parts = [{"params": weights}] if groups == 1 else [{"params": [one]} for one in weights]
    optimizer: Any = Adaptive(parts, 0.1, decay, scale=3.0)
    optimizer.megdet_built = _settings(optimizer.param_groups)
    return optimizer


def test_state_among_the_settings_goes_on_and_what_was_changed_counts() -> None:
    before = built(0.5)
    before.step()
    state = before.state_dict()
    after = built(0.9)
    load_optimizer(after, state, before.megdet_built)
    assert after.param_groups[0]["estimate"] == 3.0 and after.param_groups[0]["decay"] == 0.9
    unknown = built(0.9)
    load_optimizer(unknown, state, None)
    assert unknown.param_groups[0]["decay"] == 0.5
    with pytest.raises(UserError, match=r"is of 2 parameters, and 1 \+ 1 are trained now"):
        load_optimizer(built(0.5, groups=2), state, before.megdet_built)


def test_the_wrapper_takes_over_all_that_it_was_made_with() -> None:
    """Horovod's makes a subclass of its class, and calls that with the groups alone."""
    made = _kept_as_made(built(0.5))
    wrapper: Any = type("Wrapper", (type(made),), {})(made.param_groups)
    assert wrapper.scale == 3.0 and wrapper.param_groups is made.param_groups
    assert isinstance(wrapper, Adaptive)
    wrapper.step()
    assert made.param_groups[0]["estimate"] == 3.0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda groups, config: None, "=mine:build gives a NoneType; return a torch.optim"),
        (
            lambda groups, config: torch.optim.SGD(groups[0]["params"][:1], lr=1.0),
            "gives an optimizer of 1 parameters, and 2 are to be trained",
        ),
        (
            lambda groups, config: torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0),
            "gives an optimizer of 2 parameters, and 2 are to be trained; it must be over all",
        ),
        (
            lambda groups, config: torch.optim.SGD([{**groups[0], "mine": object()}], lr=1.0),
            "could not be saved in a checkpoint",
        ),
        (
            lambda groups, config: torch.optim.LBFGS(groups[0]["params"]),
            "gives a LBFGS, which computes the loss again within a step",
        ),
    ],
)
def test_what_is_no_optimizer_of_these_parameters_is_refused(make: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        make_optimizer(nn.Linear(2, 2), CONFIG, make)
    assert str(caught.value).startswith("learning.optimizer") and told in str(caught.value)


def test_it_is_given_the_groups_of_ours() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    seen: list[Any] = []

    def make(groups: Any, config: Any) -> torch.optim.Optimizer:
        seen.extend(groups)
        return torch.optim.AdamW(groups)

    config = load_config(None, ["learning.decay_bn=false", "learning.weight_decay=0.25"])
    assert isinstance(make_optimizer(model, config, make), torch.optim.AdamW)
    assert [(len(one["params"]), one["weight_decay"]) for one in seen] == [(2, 0.25), (2, 0.0)]
