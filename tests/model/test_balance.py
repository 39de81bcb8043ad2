"""What the detector says it drew, against counts taken where it draws."""

from unittest import mock

import pytest
import torch
from torch import Tensor

from megdet_hvd.model import roi_heads, rpn
from megdet_hvd.model.balance import Drawn, SampleBalance
from megdet_hvd.model.sampling import sample_balanced
from tests.model.samples import build, part, random_batch, slim


def test_the_counts_are_those_of_the_samples() -> None:
    detector = build(slim()).train()
    batch = random_batch(boxes=[4, 0, 3, 1, 6, 2, 5, 4])
    seen: dict[str, list[tuple[int, int]]] = {"rpn": [], "box": []}

    def counting(stage: str) -> object:
        def sample(labels: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
            positives, negatives = sample_balanced(labels, *rest)  # type: ignore[arg-type]
            assert (labels[positives] > 0).all() and (labels[negatives] == 0).all()
            seen[stage].append((len(positives), len(positives) + len(negatives)))
            return positives, negatives

        return sample

    with (
        mock.patch.object(rpn, "sample_balanced", counting("rpn")),
        mock.patch.object(roi_heads, "sample_balanced", counting("box")),
    ):
        losses = detector(batch)
    found = detector.sample_balance
    assert [tuple(one) for one in found.rpn] == seen["rpn"] and len(seen["rpn"]) == 8
    assert [tuple(one) for one in found.box] == seen["box"]
    assert found.rpn[1].positives == 0 and found.rpn[2].positives > 0  # picture 1 has no boxes
    assert all(one.all == 64 for one in found.rpn)
    assert set(losses) == {"rpn_class", "rpn_box", "class", "box"}


def test_the_newest_forward_in_training_counts() -> None:
    detector = build(slim()).train()
    assert detector.sample_balance == SampleBalance()
    batch = random_batch()
    detector(part(batch, [0, 1]))
    two = detector.sample_balance
    assert len(two.rpn) == len(two.box) == 2
    with torch.no_grad():
        detector.eval()(part(batch, [0]))
    assert detector.sample_balance == two
    detector.train()(part(batch, []))
    assert detector.sample_balance == SampleBalance()


def test_share_of_positives() -> None:
    assert Drawn(64, 256).foreground == 0.25
    assert Drawn(0, 0).foreground == 0.0
    assert Drawn(3, 8).foreground == pytest.approx(0.375)
