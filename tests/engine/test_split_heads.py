"""bn.size counts images in the box head too, where a row is a box."""

import pytest
import torch
from torch import Tensor, nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.image_groups import parts_of
from megdet_hvd.config.load import load_config
from megdet_hvd.engine.norms import detector_norm
from megdet_hvd.image_rows import current_rows
from megdet_hvd.job.world import World
from megdet_hvd.memory.recompute import recompute_segments
from megdet_hvd.model.build import build_detector
from tests.engine.check_gradients import part, pictures
from tests.engine.small import SETTINGS


@pytest.mark.parametrize("mode", ["none", "blocks"])
def test_every_part_of_the_box_head_holds_the_boxes_of_its_images(mode: str) -> None:
    config = load_config(
        None,
        [*SETTINGS, "global_batch=4", "bn.size=2", "model.roi.head=conv", "model.roi.norm=same"],
    )
    norm = detector_norm(config, World(rank=0, size=1, machines=((0,),)))
    detector = build_detector(config.model, 3, norm, seed=1).train()
    recompute_segments(detector, mode)  # type: ignore[arg-type]
    seen: list[tuple[list[int], tuple[int, ...] | None]] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, CrossGPUBatchNorm2d)
        split = parts_of(inputs[0], layer.images_per_statistic)
        seen.append(([len(one) for one in split], current_rows()))

    layer = next(m for m in detector.roi_heads.box_head.modules() if isinstance(m, nn.BatchNorm2d))
    layer.register_forward_pre_hook(look)
    stem: list[int] = []
    detector.backbone.body["bn1"].register_forward_pre_hook(
        lambda layer, inputs: stem.extend(len(one) for one in parts_of(inputs[0], 2))
    )
    losses = detector(part(pictures(), 1, 4))
    torch.stack([one.sum() for one in losses.values()]).sum().backward()
    calls = 1 if mode == "none" else 2  # once more in the backward pass
    assert len(seen) == calls and stem == [2, 2] * calls
    for lengths, rows in seen:
        assert rows is not None and len(rows) == 4 and all(0 < count <= 16 for count in rows)
        assert lengths == [rows[0] + rows[1], rows[2] + rows[3]]
