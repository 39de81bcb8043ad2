"""Matching and sampling: rules, and draws that belong to the picture."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection._utils import BoxCoder as TheirCoder

from megdet_hvd.errors import UserError
from megdet_hvd.model.box_coding import BoxCoder
from megdet_hvd.model.draw_versions import DRAWS, NEWEST_DRAW, draw_of
from megdet_hvd.model.hashed_draw import HASH_BITS, INDEX_BITS, hash_keys, sample_by_hash
from megdet_hvd.model.matching import BACKGROUND, IGNORED, match_boxes
from megdet_hvd.model.sampling import Sampler
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


@pytest.fixture(params=sorted(DRAWS))
def sampler(request: pytest.FixtureRequest) -> Sampler:
    """Each way to draw."""
    return draw_of(request.param).sampler


def drawn(
    sampler: Sampler, labels: Tensor, number: int, fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Positives and negatives."""
    sample = sampler(labels, number, fraction, seed, exact=True)
    assert sample.taken is None and sample.positive is None
    return sample.positives, sample.index[sample.positive_places :]


def test_sample_takes_the_share_and_fills_with_negatives(sampler: Sampler) -> None:
    labels = torch.tensor([1] * 10 + [-1] * 5 + [0] * 50)
    positives, negatives = drawn(sampler, labels, 16, 0.25, seed=1)
    assert (len(positives), len(negatives)) == (4, 12)
    assert (labels[positives] == 1).all()
    assert (labels[negatives] == 0).all()
    both = torch.cat((positives, negatives))
    assert len(set(both.tolist())) == 16

    few = torch.tensor([1, 1, 0, 0, 0, -1])
    positives, negatives = drawn(sampler, few, 16, 0.25, seed=1)
    assert sorted(positives.tolist()) == [0, 1]
    assert sorted(negatives.tolist()) == [2, 3, 4]
    assert [len(x) for x in drawn(sampler, few[:0], 16, 0.25, seed=1)] == [0, 0]
    assert [len(x) for x in drawn(sampler, few, 16, 0.0, seed=1)] == [0, 3]
    assert [len(x) for x in drawn(sampler, few, 2, 1.0, seed=1)] == [2, 0]


@pytest.mark.parametrize("positives", [0, 1, 3, 40])
@pytest.mark.parametrize("negatives", [0, 2, 40])
def test_a_share_that_is_not_whole_is_rounded_as_torchvisions(
    sampler: Sampler, positives: int, negatives: int
) -> None:
    labels = torch.tensor([1] * positives + [0] * negatives + [-1] * 3)
    for number, fraction in ((1, 0.5), (5, 0.25), (7, 0.5), (11, 0.9), (64, 0.3)):
        theirs = BalancedPositiveNegativeSampler(number, fraction)([labels])
        expected = [int(mask[0].sum()) for mask in theirs]
        found = [len(part) for part in drawn(sampler, labels, number, fraction, seed=3)]
        assert found == expected, (number, fraction)


def test_sample_depends_on_its_seed_alone(sampler: Sampler) -> None:
    labels = (torch.arange(400) % 4 == 0).long()
    torch.manual_seed(1)
    first = torch.cat(drawn(sampler, labels, 32, 0.5, seed=7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(torch.cat(drawn(sampler, labels, 32, 0.5, seed=7)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(torch.cat(drawn(sampler, labels, 32, 0.5, seed=8)), first)


def test_samples_are_spread_evenly(sampler: Sampler) -> None:
    """Each of 40 negatives is drawn in a quarter of 2000 draws, within five deviations.

    So is each pair in (10·9)/(40·39) of them: one draw does not lean on another.
    """
    labels = torch.zeros(40, dtype=torch.int64)
    times = torch.zeros(40, 40)
    for seed in range(2000):
        own = torch.zeros(40)
        own[drawn(sampler, labels, 10, 0.5, seed)[1]] = 1
        times += own[:, None] * own
    assert (times.diagonal() - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5
    share = 10 * 9 / (40 * 39)
    pairs = times[tuple(torch.triu_indices(40, 40, 1))]
    assert (pairs - 2000 * share).abs().max() < 5 * (2000 * share * (1 - share)) ** 0.5


def test_positives_are_spread_evenly(sampler: Sampler) -> None:
    """6 of 24 positives, drawn 2000 times; those that stand behind others are no worse off."""
    labels = torch.tensor([1, 0, -1, 2, 0] * 12)
    own = torch.where(labels > 0)[0]
    times = torch.zeros(len(labels))
    for seed in range(2000):
        times[drawn(sampler, labels, 12, 0.5, seed)[0]] += 1
    assert times.sum() == times[own].sum() == 6 * 2000
    assert (times[own] - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def splitmix64(state: int, count: int) -> list[int]:
    """The generator as its authors write it, in integers without end."""
    whole, found = (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & whole
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
        found.append(z ^ (z >> 31))
    return found


def test_hashes_are_splitmix64() -> None:
    # As published with other implementations, for the seed 1234567.
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]
    for seed in (0, 1234567, (1 << 63) - 1, (1 << 64) - 3):
        keys = hash_keys(300, seed, torch.zeros(0))
        hashes = [hashed >> (64 - HASH_BITS) for hashed in splitmix64(seed, 300)]
        assert keys.tolist() == [h << INDEX_BITS | i for i, h in enumerate(hashes)]
        assert int(keys.min()) >= 0 and int(keys.max()) < 1 << (INDEX_BITS + HASH_BITS)


def test_the_hashed_draw_is_the_highest_hashes() -> None:
    """Against sorting by hand, over labels of all kinds; without and with empty places."""
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(-1, 3, (seed * 3,), generator=generator)
        number, fraction = 20, 0.3
        order = sorted(range(len(labels)), key=lambda i: splitmix64(seed, i + 1)[i], reverse=True)
        positives = [i for i in order if labels[i] > 0][:6]
        negatives = [i for i in order if labels[i] == 0][: number - len(positives)]
        exact = sample_by_hash(labels, number, fraction, seed, exact=True)
        assert exact.index.tolist() == positives + negatives
        assert exact.positives.tolist() == positives
        loose = sample_by_hash(labels, number, fraction, seed)
        assert loose.taken is not None and loose.positive is not None
        assert loose.index[loose.taken].tolist() == positives + negatives
        assert loose.positives[loose.positive].tolist() == positives
        assert len(loose.index) == min(number, len(labels))


def test_a_draw_of_a_later_version_is_refused() -> None:
    assert NEWEST_DRAW in DRAWS
    with pytest.raises(UserError, match="by version 9, and this megdet_hvd has versions 1 and 2"):
        draw_of(9)


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


def test_box_coding_is_torchvisions() -> None:
    """Bit for bit, for both stages' scales and for several boxes against one."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 400, 2, generator=generator) * 300
    boxes, against = torch.cat(
        (corners, corners + torch.rand(2, 400, 2, generator=generator) * 60 + 2), dim=2
    )
    for centre, sides in ((1.0, 1.0), (10.0, 5.0)):
        ours, theirs = BoxCoder(centre, sides), TheirCoder((centre, centre, sides, sides))
        offsets = ours.encode(boxes, against)
        assert torch.equal(offsets, theirs.encode_single(boxes, against))
        several = torch.cat((offsets, torch.randn(400, 8, generator=generator) * 30), dim=1)
        assert torch.equal(ours.decode(several, against), theirs.decode_single(several, against))
        torch.testing.assert_close(ours.decode(offsets, against), boxes, rtol=1e-4, atol=1e-3)
        assert ours.decode(offsets[:0], against[:0]).shape == (0, 4)
