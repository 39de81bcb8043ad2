"""A run goes on with the kernels that it began with; one from before there were two, too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megdet_hvd.config.schema import Config
from megdet_hvd.engine.state import capture_state, restore_state
from megdet_hvd.engine.step.optimizer import make_optimizer
from megdet_hvd.evaluation.trained import _ours
from megdet_hvd.model.detector import Detector
from tests.engine.tale import ALONE
from tests.model.samples import build, slim

CPU = torch.device("cpu")
KERNELS = {
    "sparse": {
        "linear": "onednn",
        "memory_format": "channels_last",
        "roi_align": "sparse",
        "rpn_gradient": "sampled",
    },
    "torchvision": {
        "linear": "torch",
        "memory_format": "contiguous",
        "roi_align": "torchvision",
        "rpn_gradient": "dense",
    },
}


class Pictures(list[int]):
    """Enough of an index."""

    categories, category_ids = ("a", "b", "c"), (1, 2, 3)
    sources, image_ids = np.zeros(4), np.arange(4)


def run_of(kernel: str) -> tuple[Detector, Any, Config]:
    own = KERNELS.get(kernel, dict.fromkeys(KERNELS["sparse"], "auto"))
    model = slim(
        norm="frozen",
        memory_format=own["memory_format"],
        roi={"align": own["roi_align"], "linear": own["linear"]},
        rpn={"gradient": own["rpn_gradient"]},
    )
    config = Config(model=model)
    detector = build(model)
    return detector, make_optimizer(detector, config), config


def state_of(detector: Detector, optimizer: Any, config: Config) -> dict[str, Any]:
    return capture_state(
        detector,
        optimizer,
        None,
        config,
        Pictures(range(4)),  # type: ignore[arg-type]
        ALONE,
        iteration=3,
        ap=None,
        best_ap=None,
        shared_statistics=True,
    )


@pytest.mark.parametrize(
    ("said", "setting", "then"),
    [
        ("sparse", "auto", "sparse"),
        ("torchvision", "auto", "torchvision"),
        (None, "auto", "torchvision"),
        (None, "sparse", "sparse"),
        ("sparse", "torchvision", "torchvision"),
    ],
)
def test_what_a_resumed_run_computes_with(said: str | None, setting: str, then: str) -> None:
    state = state_of(*run_of("auto" if said is None else said))
    assert state["kernels"] == KERNELS["sparse" if said is None else said]
    if said is None:
        del state["kernels"]
    detector, optimizer, config = run_of(setting)
    pictures: Any = Pictures(range(4))
    assert restore_state(state, detector, optimizer, None, config, pictures, ALONE) == 3
    assert detector.roi_heads.box_roi_pool.kernel_on(CPU) == then
    assert detector.rpn.choice.kernel == KERNELS[then]["rpn_gradient"]
    assert detector.choice.kernel == KERNELS[then]["memory_format"]
    # Its own checkpoints say so, and those who evaluate them compute alike.
    again = state_of(detector, optimizer, config)
    assert again["kernels"] == KERNELS[then]
    built: Any = _ours(again, Path("x.pt")).build()
    assert built.roi_heads.box_roi_pool.kernel_on(CPU) == then
