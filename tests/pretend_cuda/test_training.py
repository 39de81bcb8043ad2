"""The detector's branches for CUDA, against the CPU: no device is mixed up, numbers agree."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.carriers import SingleProcessCarrier
from megdet_hvd.data.batch import Batch, Detections
from megdet_hvd.engine.step.status import StatusMessage, StepStatus
from megdet_hvd.memory.recompute import recompute_segments
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.normalise import normalise
from megdet_hvd.model.proposals import SMALLEST_SIDE
from tests.model.samples import build, part, random_batch, slim, total
from tests.pretend_cuda.device import CUDA, pretended_cuda
from tests.pretend_cuda.training import steps_on, use_emulated

PICTURES = [0, 2, 4]


def cgbn(**changes: object) -> Detector:
    """With CGBN layers, each a group of its own. float64: no box is chosen by a rounding."""
    detector = build(slim(**changes))
    for parent in list(detector.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                made = CrossGPUBatchNorm2d(layer.num_features)
                made.load_state_dict(layer.state_dict())
                made.carrier = SingleProcessCarrier()
                setattr(parent, name, made)
    return detector.double().train()


def losses_and_gradients(
    detector: Detector, batch: Batch
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of one pass, and the buffers after it; on the CPU."""
    losses = detector(batch)
    assert isinstance(losses, dict)
    total(losses).backward()
    found = {name: p.grad for name, p in detector.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in found.values())
    kept = {name: g.cpu() for name, g in found.items() if g is not None}
    kept |= {name: buffer.cpu() for name, buffer in detector.named_buffers()}
    return {name: value.detach().cpu() for name, value in losses.items()}, kept


def there(make: Callable[[], Detector], fused: bool) -> Detector:
    """On the device; ``fused``: with CGBN's own kernels, emulated."""
    detector = make().to(CUDA)
    if fused:
        use_emulated(detector, torch.float64)
    return detector


def on_both(
    make: Callable[[], Detector], batch: Batch, close: float = 1e-8, fused: bool = False
) -> None:
    """The same losses, gradients and running statistics on the CPU and on the device."""
    expected = losses_and_gradients(make(), batch)
    with pretended_cuda():
        found = losses_and_gradients(there(make, fused), batch.to(CUDA))
    for theirs, ours in zip(expected, found, strict=True):
        assert theirs.keys() == ours.keys()
        for name, value in theirs.items():
            size = value.double().norm().item() if value.numel() else 0.0
            distance = (ours[name].double() - value.double()).norm().item()
            assert distance <= close * size + 1e-12, f"{name}: {distance:.3g} of {size:.3g}"


def channels_last() -> Detector:
    made: Detector = cgbn().to(memory_format=torch.channels_last)
    return made


def all_normalised() -> Detector:
    return cgbn(fpn_norm="same", roi={"head": "conv", "norm": "same", "width": 32})


def over_all_steps() -> Detector:
    return cgbn(norm_momentum=None)


@pytest.mark.parametrize(
    ("make", "fused"),
    [
        *((make, False) for make in (cgbn, channels_last, all_normalised, over_all_steps)),
        (cgbn, True),
        (channels_last, True),
        pytest.param(all_normalised, True, marks=pytest.mark.tail),
        pytest.param(over_all_steps, True, marks=pytest.mark.tail),
    ],
)
def test_a_step_on_the_device_is_the_cpus(make: Callable[[], Detector], fused: bool) -> None:
    on_both(make, part(random_batch(), PICTURES), fused=fused)


def test_the_loop_tells_of_a_step_what_it_does_on_the_cpu() -> None:
    """Two passes a step, one without pictures; weights after it, too."""
    batches = [part(random_batch(), PICTURES), part(random_batch(), []), part(random_batch(), [1])]

    def steps(device: torch.device) -> tuple[list[StepStatus], dict[str, Tensor]]:
        detector = cgbn()
        found = [step.status for step in steps_on(device, detector, batches, 2)]
        return found, {name: p.detach().cpu() for name, p in detector.named_parameters()}

    expected, weights = steps(torch.device("cpu"))
    with pretended_cuda():
        found, ours = steps(CUDA)
    for here, there in zip(expected, found, strict=True):
        assert (here.images, here.skipped, here.stop) == (there.images, there.skipped, there.stop)
        assert here.images == 4 and here.balance["rpn_foreground_spread"] > 0
        assert here.balance == pytest.approx(there.balance, rel=1e-12)
        assert here.losses == pytest.approx(there.losses, rel=1e-8)
        assert here.gradient_norm == pytest.approx(there.gradient_norm, rel=1e-8)
    for name, value in weights.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-8, atol=1e-10)


def test_the_status_goes_behind_the_last_bn_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it, on a GPU, it could keep a BN message from coming."""
    sent: list[str] = []
    send = StatusMessage.send

    def note(message: StatusMessage) -> None:
        sent.append("status")
        send(message)

    monkeypatch.setattr(StatusMessage, "send", note)
    with pretended_cuda():
        detector = cgbn()
        for layer in detector.modules():
            if isinstance(layer, CrossGPUBatchNorm2d):
                layer.carrier = NotedCarrier(sent)
        (step,) = steps_on(
            CUDA, detector, [part(random_batch(), [0]), part(random_batch(), [1])], 1
        )
    assert step.status.images == 2
    assert sent.count("status") == 1 and sent[-1] == "status"
    assert sum(name.endswith("backward.0") for name in sent) == 2 * 20


class NotedCarrier(SingleProcessCarrier):
    """Writes down what it is asked to sum."""

    def __init__(self, sent: list[str]) -> None:
        super().__init__()
        self.sent = sent

    def sum(self, vector: Tensor, name: str) -> Tensor:
        """The vector itself."""
        self.sent.append(name)
        return vector


@pytest.mark.parametrize("boxes", [0, [1, 0, 7]])
def test_pictures_without_boxes(boxes: list[int] | int) -> None:
    on_both(cgbn, random_batch([(128, 96), (70, 90), (96, 128)], boxes))


def test_few_candidates() -> None:
    """Fewer anchors and boxes than are to be drawn."""

    def few() -> Detector:
        return cgbn(
            rpn={"anchors_per_image": 100_000, "post_nms_train": 20},
            roi={"boxes_per_image": 64, "width": 64},
        )

    on_both(few, random_batch([(96, 96), (64, 90)], [3, 0]))


def test_small_proposals_are_left_out() -> None:
    """Deltas that make every third box a line: neither drawn nor detected."""
    batch = random_batch([(96, 128), (90, 70)], 3)

    def lines() -> Detector:
        detector = cgbn()
        with torch.no_grad():
            detector.rpn.head.bbox_pred.bias[2::12] = -20.0  # the width of one ratio's boxes
        return detector

    on_both(lines, batch)
    with pretended_cuda():
        detector = lines().to(CUDA)
        moved = batch.to(CUDA)
        features = detector.backbone(normalise(moved.images, [(96, 128)] * 2, torch.float64))
        outputs = detector.rpn(features, (128, 128))
        for proposals in detector.rpn.propose(outputs, [(96, 128), (90, 70)]):
            assert proposals.valid is not None and int(proposals.valid.sum()) > 0
            sides = proposals.boxes[:, 2:] - proposals.boxes[:, :2]
            small = (sides < SMALLEST_SIDE).any(1)
            assert bool(small.any()) and torch.equal(small.cpu(), ~proposals.valid.cpu())
            assert len(proposals.all_valid()) == int(proposals.valid.sum())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("make", [cgbn, all_normalised])
def test_a_process_without_pictures(make: Callable[[], Detector], fused: bool) -> None:
    with pretended_cuda():
        detector = there(make, fused)
        for layer in detector.modules():
            if isinstance(layer, CrossGPUBatchNorm2d):
                layer.carrier.sum = lambda vector, name: vector + 8.0  # type: ignore[method-assign]
        losses, found = losses_and_gradients(detector, part(random_batch(), []).to(CUDA))
    assert all(value.shape == (0,) for value in losses.values())
    trained = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert all(not found[name].any() for name in trained)


@pytest.mark.parametrize(
    ("mode", "fused"),
    [
        ("blocks", False),
        ("stages", False),
        ("blocks", True),
        pytest.param("stages", True, marks=pytest.mark.tail),
    ],
)
def test_recomputation_changes_no_bit(mode: str, fused: bool) -> None:
    batch = part(random_batch(), PICTURES)
    with pretended_cuda():
        plain = losses_and_gradients(there(all_normalised, fused), batch.to(CUDA))
        detector = there(all_normalised, fused)
        recompute_segments(detector, mode)  # type: ignore[arg-type]
        found = losses_and_gradients(detector, batch.to(CUDA))
    for theirs, ours in zip(plain, found, strict=True):
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_detections_are_the_cpus() -> None:
    batch = part(random_batch(), PICTURES)
    detector = cgbn(roi={"score_threshold": 0.0, "width": 64}).eval()
    expected = detector(batch)
    with pretended_cuda():
        found = detector.to(CUDA)(batch.to(CUDA))
        for ours, theirs in zip(found, expected, strict=True):
            assert isinstance(ours, Detections) and isinstance(theirs, Detections)
            assert len(theirs.boxes) and ours.boxes.is_cuda
            torch.testing.assert_close(ours.boxes.cpu(), theirs.boxes)
            torch.testing.assert_close(ours.scores.cpu(), theirs.scores)
        empty = detector(part(random_batch(), []).to(CUDA))
    assert empty == []
