"""What the detector says it drew, against counts taken where it draws."""

from unittest import mock

import pytest
import torch
from torch import Tensor

from megdet_hvd.model import detector as detectors
from megdet_hvd.model.balance import Drawn, SampleBalance, foreground_shares
from megdet_hvd.model.draw_versions import Draw
from megdet_hvd.model.hashed_draw import sample_by_hash
from megdet_hvd.model.sampling import Sample
from tests.model.samples import build, part, random_batch, slim


def test_the_counts_are_those_of_the_samples() -> None:
    detector = build(slim()).train()
    batch = random_batch(boxes=[4, 0, 3, 1, 6, 2, 5, 4])
    seen: list[tuple[int, int]] = []

    def sample(
        labels: Tensor, number: int, positive_fraction: float, seed: int, *, exact: bool
    ) -> Sample:
        drawn = sample_by_hash(labels, number, positive_fraction, seed, exact=exact)
        positives, negatives = drawn.positives, drawn.index[drawn.positive_places :]
        assert (labels[positives] > 0).all() and (labels[negatives] == 0).all()
        seen.append((len(positives), len(drawn.index)))
        return drawn

    with mock.patch.object(detectors, "draw_of", lambda version: Draw(sample, True)):
        losses = detector(batch)
    found = detector.sample_balance
    assert isinstance(found.rpn, tuple) and isinstance(found.box, tuple)
    assert [tuple(one) for one in found.rpn] == seen[:8]
    assert [tuple(one) for one in found.box] == seen[8:] and len(seen) == 16
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
    pairs = [(64, 256), (0, 0), (1, 3)]
    on_host = foreground_shares(tuple(Drawn(*pair) for pair in pairs))
    on_device = foreground_shares(torch.tensor(pairs))
    assert [float(share) for share in on_device] == on_host
