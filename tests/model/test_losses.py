"""Each picture's losses against torchvision's own model on that picture alone."""

import math

import pytest
import torch
from torch import Tensor

from megdet_hvd.draws import draw_key
from megdet_hvd.model.hashed_draw import sample_by_hash
from megdet_hvd.model.losses import box_losses, class_losses, objectness_losses
from megdet_hvd.model.sampling import Sample, Samples
from megdet_hvd.model.torchvision_io import to_torchvision
from tests.model.samples import backward, build, part, random_batch, slim

THEIRS = {
    "rpn_class": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "class": "loss_classifier",
    "box": "loss_box_reg",
}


class SameSample:
    """Stands in for torchvision's sampler: our draw, in its format (byte masks).

    ``truth``: so many boxes stand last among its candidates, and first among ours.
    """

    def __init__(self, number: int, fraction: float, seed: int, truth: int) -> None:
        self.number, self.fraction, self.seed, self.truth = number, fraction, seed, truth

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        masks: tuple[list[Tensor], list[Tensor]] = ([], [])
        for own in labels:
            ours = own.roll(self.truth)
            drawn = sample_by_hash(ours, self.number, self.fraction, self.seed, exact=True)
            both = drawn.positives, drawn.index[drawn.positive_places :]
            for mask_list, index in zip(masks, both, strict=True):
                mask = torch.zeros_like(own, dtype=torch.uint8)
                mask[index] = 1
                mask_list.append(mask.roll(-self.truth))
        return masks


@pytest.mark.parametrize("norm", ["frozen", "bn"])
@pytest.mark.parametrize("boxes", [5, 0])
def test_one_picture_gives_torchvisions_losses_and_gradients(norm: str, boxes: int) -> None:
    detector = build(slim(norm=norm)).double()
    size = (96, 128)
    batch = random_batch([size], boxes)
    theirs = to_torchvision(detector, min_size=96, max_size=1333).train()
    info, config = batch.infos[0], detector.config
    rpn, roi = config.rpn, config.roi
    for stage, purpose, number, fraction, truth in (
        (theirs.rpn, "anchors", rpn.anchors_per_image, rpn.positive_fraction, 0),
        (theirs.roi_heads, "rois", roi.boxes_per_image, roi.positive_fraction, boxes),
    ):
        key = draw_key(detector.seed, info.epoch, info.source, info.image_id, purpose)
        stage.fg_bg_sampler = SameSample(number, fraction, key, truth)

    picture = batch.images[0, :, : size[0], : size[1]].double() / 255
    target = {"boxes": batch.targets[0].boxes.double(), "labels": batch.targets[0].labels}
    expected = theirs([picture], [target])
    # torchvision's canvas is 96 pixels high; the same canvas gives the same anchors here.
    low = batch.images[:, :, :96]
    losses = detector(type(batch)(low, batch.infos, batch.targets))
    for ours, its in THEIRS.items():
        # torchvision's cross-entropy of anchors comes out in float32, its labels' type.
        close = 1e-6 if ours == "rpn_class" else 1e-9
        torch.testing.assert_close(losses[ours], expected[its].double().view(1), rtol=close, atol=0)
    if boxes:
        assert all(value.item() > 0 for value in losses.values())

    backward(losses)
    torch.autograd.backward(list(expected.values()))
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in detector.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-7)


def places(*counts: tuple[int, int]) -> Samples:
    """Of each picture, places and positive ones."""
    return Samples([Sample(torch.zeros(n, dtype=torch.int64), p) for n, p in counts])


LOG2 = torch.log(torch.tensor(2.0)).item()


def test_counts_are_those_of_each_picture() -> None:
    """By hand: two pictures with 2 and 3 samples, of which 1 and 0 are positive."""
    two = places((2, 1), (3, 0))
    logits = torch.tensor([0.0, 0.0, 100.0, 100.0, -100.0])
    truth = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])
    torch.testing.assert_close(objectness_losses(logits, truth, two), torch.tensor([LOG2, 100 / 3]))
    found = class_losses(torch.zeros(5, 4), torch.tensor([1, 0, 2, 0, 0]), two)
    torch.testing.assert_close(found, torch.full((2,), 2 * LOG2))

    # |difference| 1 is linear: 1 - beta/2; 1/18 is square: (1/18)²/(2·1/9) = 1/72.
    deltas = torch.tensor([[1.0, 1 / 18, 0.0, 0.0]])
    found = box_losses(deltas, torch.zeros(1, 4), two)
    torch.testing.assert_close(found, torch.tensor([(1 - 1 / 18 + 1 / 72) / 2, 0.0]))


def test_places_that_are_not_taken_count_for_nothing() -> None:
    """Two pictures, of 4 and 2 places; 3 and none are taken, 1 and none by a positive."""
    yes, no = True, False
    rows = [
        Sample(torch.arange(4), 2, torch.tensor([yes, yes, no, yes]), torch.tensor([yes, no])),
        Sample(torch.arange(2), 1, torch.tensor([no, no]), torch.tensor([no])),
    ]
    samples = Samples(rows)
    assert samples.counts is not None and samples.counts.tolist() == [[1, 3], [0, 0]]
    logits = torch.tensor([0.0, 0.0, math.inf, 0.0, 5.0, 7.0], requires_grad=True)
    found = objectness_losses(logits, torch.zeros(6), samples)
    torch.testing.assert_close(found, torch.tensor([LOG2, 0.0]))
    found.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([1 / 6, 1 / 6, 0.0, 1 / 6, 0.0, 0.0]))

    found = class_losses(torch.zeros(6, 4), torch.tensor([1, 0, 3, 0, 0, 1]), samples)
    torch.testing.assert_close(found, torch.tensor([2 * LOG2, 0.0]))
    deltas = torch.tensor([[1.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0], [7.0, 7.0, 7.0, 7.0]])
    found = box_losses(deltas, torch.zeros(3, 4), samples)
    torch.testing.assert_close(found, torch.tensor([(1 - 1 / 18) / 3, 0.0]))


def test_losses_of_a_batch_are_those_of_its_pictures() -> None:
    detector = build(slim(norm="frozen")).double()
    batch = random_batch()
    together = detector(batch)
    for i in range(len(batch)):
        alone = detector(part(batch, [i]))
        for name, values in together.items():
            assert values.shape == (len(batch),)
            torch.testing.assert_close(alone[name][0], values[i], rtol=1e-9, atol=1e-10)
