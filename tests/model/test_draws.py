"""Matching and sampling: rules, and draws that belong to the picture."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher

from megdet_hvd.model.matching import BACKGROUND, IGNORED, match_boxes
from megdet_hvd.model.sampling import sample_balanced
from tests.model.samples import build, part, random_batch, slim


@pytest.mark.parametrize("keep_best", [True, False])
def test_matching_is_torchvisions(keep_best: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    # Rounded, so that ties occur; never 0, where the two differ on purpose.
    iou = torch.rand(7, 500, generator=generator).mul(20).ceil() / 20
    found = match_boxes(iou, background=0.8, foreground=0.95, keep_best=keep_best)
    expected = Matcher(0.95, 0.8, allow_low_quality_matches=keep_best)(iou)
    assert torch.equal(found, expected)
    assert {BACKGROUND, IGNORED} <= set(found.tolist())


def test_a_box_that_nothing_overlaps_claims_nothing() -> None:
    iou = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.2, 0.1, 0.2]])
    found = match_boxes(iou, background=0.3, foreground=0.7, keep_best=True)
    assert found.tolist() == [BACKGROUND, 1, BACKGROUND, 1]
    assert match_boxes(iou[:, :0], background=0.3, foreground=0.7, keep_best=True).shape == (0,)


def test_sample_takes_the_share_and_fills_with_negatives() -> None:
    labels = torch.tensor([1] * 10 + [-1] * 5 + [0] * 50)
    positives, negatives = sample_balanced(labels, 16, 0.25, seed=1)
    assert (len(positives), len(negatives)) == (4, 12)
    assert (labels[positives] == 1).all()
    assert (labels[negatives] == 0).all()
    both = torch.cat((positives, negatives))
    assert len(set(both.tolist())) == 16

    few = torch.tensor([1, 1, 0, 0, 0, -1])
    positives, negatives = sample_balanced(few, 16, 0.25, seed=1)
    assert positives.tolist() == [0, 1]
    assert negatives.tolist() == [2, 3, 4]
    assert [len(x) for x in sample_balanced(few[:0], 16, 0.25, seed=1)] == [0, 0]


def test_sample_depends_on_its_seed_alone() -> None:
    labels = (torch.arange(400) % 4 == 0).long()
    torch.manual_seed(1)
    first = torch.cat(sample_balanced(labels, 32, 0.5, seed=7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(torch.cat(sample_balanced(labels, 32, 0.5, seed=7)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(torch.cat(sample_balanced(labels, 32, 0.5, seed=8)), first)


def test_samples_are_spread_evenly() -> None:
    """Each of 40 negatives is drawn in a quarter of 2000 draws, within five deviations."""
    labels = torch.zeros(40, dtype=torch.int64)
    drawn = torch.zeros(40)
    for seed in range(2000):
        drawn[sample_balanced(labels, 10, 0.5, seed)[1]] += 1
    assert (drawn - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_draws_follow_the_picture_the_epoch_and_the_seed() -> None:
    detector = build(slim(norm="frozen")).double()
    batch = random_batch()
    order = [5, 2, 7, 0]
    losses = detector(batch)
    shuffled = detector(part(batch, order))
    later = detector(random_batch(epoch=1))
    detector.seed = 1
    otherwise = detector(batch)
    for name in ("rpn_class", "class"):
        torch.testing.assert_close(shuffled[name], losses[name][order], rtol=1e-9, atol=1e-10)
        # Another sample of anchors or boxes has another loss.
        assert (later[name] - losses[name]).abs().min() > 1e-8
        assert (otherwise[name] - losses[name]).abs().min() > 1e-8
