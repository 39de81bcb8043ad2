"""A detector of the user's own: what is done to it, and what is told before training."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Batch, Detections, ImageInfo
from megdet_hvd.engine.memory import _of_own
from megdet_hvd.errors import UserError
from megdet_hvd.memory.segments import segments
from megdet_hvd.model.build import local_norm
from megdet_hvd.model.initialise import init_from
from megdet_hvd.model.norm import BatchNorm2d
from megdet_hvd.model.own import build_own_detector, checked_losses, replace_norms, try_out
from tests.extending.parts import Tiny, tiny

NAME = "model.detector=tests.extending.parts:tiny"


def config_of(*more: str) -> Config:
    return load_config(None, [NAME, *more])


def built(config: Config, factory: Any = tiny, classes: int = 3) -> nn.Module:
    norm = local_norm(config.model)
    return build_own_detector(factory, config, classes, norm, pretrained=True)


def _infos(count: int) -> tuple[ImageInfo, ...]:
    return tuple(ImageInfo(k, 0, k, 0, (32, 64), (32, 64)) for k in range(count))


def test_it_is_tried_out_and_is_as_it_was() -> None:
    config = config_of("data.keep_empty=true")
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    detector = built(config)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    assert try_out(detector, config, 3, empty=True) == ["guess"]
    after = detector.state_dict()
    assert detector.training and all(torch.equal(value, after[n]) for n, value in before.items())
    assert torch.equal(torch.get_rng_state(), drawn)
    again = built(config).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in before.items())


def test_its_pictures_are_contiguous_whatever_the_loader_gives() -> None:
    class Looks(nn.Module):
        def forward(self, batch: Batch) -> torch.Tensor:
            return batch.images.view(len(batch), -1)  # of other orders torch makes no such view

    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    given = Batch(images.contiguous(memory_format=torch.channels_last), _infos(2), ())
    found = built(config_of("model.norm=none"), lambda *_: Looks())(given)
    assert torch.equal(found, images.flatten(1))
    assert given.images.is_contiguous(memory_format=torch.channels_last), "the caller's stays"


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("cgbn", CrossGPUBatchNorm2d),
        ("bn", BatchNorm2d),
        ("frozen", FrozenBatchNorm2d),
    ],
)
def test_its_norm_layers_are_those_of_the_settings(norm: str, kind: type[nn.Module]) -> None:
    config = config_of(f"model.norm={norm}", "model.norm_eps=0.01", "model.norm_momentum=0.3")
    detector = built(config)
    weight, keys = detector.get_parameter("classes.weight"), set(detector.state_dict())
    scale = detector.state_dict()["body.1.weight"]
    if norm == "cgbn":
        made = lambda n: CrossGPUBatchNorm2d(n, eps=0.01, momentum=0.3)  # noqa: E731
        replace_norms(detector, config.model, made)
    layer: Any = detector.get_submodule("body.1")
    assert type(layer) is kind and layer.eps == 0.01
    assert norm == "frozen" or layer.momentum == 0.3
    assert set(detector.state_dict()) == keys and detector.get_parameter("classes.weight") is weight
    assert torch.equal(detector.state_dict()["body.1.weight"], scale)


def test_its_weights_are_drawn_from_the_seed_alone() -> None:
    """Every process makes it at a state of the generator of its own."""
    drawn = []
    for state, seed in ((1, 3), (2, 3), (2, 4)):
        torch.manual_seed(state)
        drawn.append(built(config_of(f"seed={seed}")).state_dict()["classes.weight"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])


def test_what_its_bn_layers_have_counted_goes_on() -> None:
    counted = Tiny(3)
    counted.state_dict()["body.1.num_batches_tracked"].fill_(7)
    detector = built(config_of(), lambda *_: counted)
    assert detector.state_dict()["body.1.num_batches_tracked"] == 7


@pytest.mark.parametrize("norm", ["cgbn", "bn"])
def test_bn_without_weights_stays_so(norm: str) -> None:
    plain = Tiny(3)
    plain.body[1] = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    config = config_of(f"model.norm={norm}")
    detector = built(config, lambda *_: plain)
    assert try_out(detector, config, 3, empty=True) == ["guess"]
    layer: Any = detector.get_submodule("body.1")
    assert layer.weight is None and layer.running_mean is None
    assert not layer.affine and not layer.track_running_stats


class NeedsBoxes(Tiny):
    """Can't take a picture without."""

    def forward(self, batch: Batch) -> Any:
        for target in batch.targets:
            target.boxes.max()
        return super().forward(batch)


def test_a_picture_without_boxes_is_tried_where_there_may_be_one() -> None:
    without, with_empty = config_of(), config_of("data.keep_empty=true")
    assert try_out(built(without, lambda *_: NeedsBoxes(3)), without, 3, empty=False)
    with pytest.raises(RuntimeError, match="max"):
        try_out(built(with_empty, lambda *_: NeedsBoxes(3)), with_empty, 3, empty=False)


class WithActivation(nn.BatchNorm2d):
    """BN and what follows in one layer, as some libraries have it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


def test_norm_layers_that_can_not_be_replaced() -> None:
    with pytest.raises(UserError, match=r"model.norm=none with .* which has BN layers"):
        built(config_of("model.norm=none"))
    synchronised = nn.SyncBatchNorm(4)
    with pytest.raises(UserError, match=r"torch.nn.SyncBatchNorm, which needs torch.distributed"):
        built(config_of(), lambda *_: nn.Sequential(synchronised))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is old
        scripted: Any = torch.jit.script(nn.Sequential(nn.BatchNorm2d(4)))
        traced: Any = torch.jit.trace(nn.BatchNorm2d(3), torch.rand(2, 3, 4, 4))
        harmless: Any = torch.jit.script(nn.Sequential(FrozenBatchNorm2d(4)))
    for layer, path in ((scripted, "0.0"), (traced, "0")):
        with pytest.raises(UserError, match=rf"the BN layer {path}, which torch.jit has compiled"):
            built(config_of(), lambda *_, layer=layer: nn.Sequential(layer))
    built(config_of(), lambda *_: nn.Sequential(harmless))
    hooked, patched = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    hooked.register_forward_hook(lambda *_: None)
    patched.forward = torch.relu  # type: ignore[method-assign]
    for other, told in (
        (WithActivation(4), "is a WithActivation with a forward() of its own"),
        (patched, "is a BatchNorm2d with a forward() of its own"),
        (hooked, "has hooks, which would be lost"),
    ):
        with pytest.raises(UserError) as caught:
            built(config_of(), lambda *_, other=other: nn.Sequential(nn.Sequential(other)))
        assert f"the BN layer 0.0, which {told}" in str(caught.value)
    shared = nn.BatchNorm2d(4)
    twice = built(config_of(), lambda *_: nn.Sequential(shared, nn.Sequential(shared)))
    assert twice[0] is twice[1][0] and type(twice[0]) is BatchNorm2d  # type: ignore[index]


class Counting(Tiny):
    """Keeps how often it was called, in no checkpoint."""

    count: torch.Tensor

    def __init__(self, *, anew: bool) -> None:
        super().__init__(3)
        self.anew = anew
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> Any:
        if self.anew:
            self.count = self.count + 1
        else:
            self.count += 1
        return super().forward(batch)


@pytest.mark.parametrize("anew", [False, True])
def test_buffers_that_no_checkpoint_has_are_put_back_too(anew: bool) -> None:
    config = config_of()
    detector: Any = built(config, lambda *_: Counting(anew=anew))
    try_out(detector, config, 3, empty=False)
    assert detector.count.item() == 0


def test_weights_of_open_shape_are_told() -> None:
    with pytest.raises(UserError, match=r"shape is still open \(0.weight, of a lazy layer\)"):
        built(config_of(), lambda *_: nn.Sequential(nn.LazyBatchNorm2d()))


class Changed(Tiny):
    """Tiny, with something else as its result."""

    def __init__(self, training: Any = None, evaluation: Any = None) -> None:
        super().__init__(3)
        self.change = training, evaluation

    def forward(self, batch: Batch) -> Any:
        found = super().forward(batch)
        change: Callable[[Any], Any] | None = self.change[0 if self.training else 1]
        return found if change is None else change(found)


def box_of(label: float, **more: Any) -> Detections:
    boxes = more.get("boxes", torch.zeros(1, 4))
    return Detections(boxes, torch.ones(1), torch.tensor([label]))


@pytest.mark.parametrize(
    ("training", "evaluation", "told"),
    [
        (lambda losses: 1.0, None, "for 2 pictures in training, a float without any; return a"),
        (lambda losses: {}, None, "in training, a dict without any; return a dict of name"),
        (lambda losses: {"guess": 1.0}, None, "'guess': a float; return"),
        (lambda losses: {"a": losses["guess"].mean()}, None, "a of shape (); return"),
        (
            lambda losses: {"a": losses["guess"].detach()},
            None,
            "gives a loss a without gradients; compute",
        ),
        (lambda losses: {"loss": losses["guess"]}, None, "calls a loss loss, which is another"),
        (lambda losses: {"split_step_s": losses["guess"]}, None, "calls a loss split_step_s, whi"),
        (lambda losses: {"slowest_rank": losses["guess"]}, None, "calls a loss slowest_rank, whi"),
        (None, lambda found: {}, "for 2 pictures in evaluation, a dict; return a list of"),
        (None, lambda found: found[:1], "in evaluation, a list of 1; return"),
        (None, lambda found: [{}, {}], "a list with a dict; return"),
        (None, lambda f: [box_of(1, boxes=torch.zeros(4))] * 2, "shapes [(4,), (1,), (1,)]; they"),
        (None, lambda f: [box_of(1, boxes=[[0, 0, 1, 1]])] * 2, "are list, Tensor, Tensor, not te"),
        (None, lambda found: [box_of(4)] * 2, "the labels [4]; they must be whole numbers from 1"),
        (None, lambda found: [box_of(1.5)] * 2, "the labels [1.5]; they must be"),
    ],
)
def test_what_it_gives_is_looked_at_before_training(
    training: Any, evaluation: Any, told: str
) -> None:
    config = config_of()
    with pytest.raises(UserError) as caught:
        try_out(built(config, lambda *_: Changed(training, evaluation)), config, 3, empty=False)
    assert str(caught.value).startswith(NAME) and told in str(caught.value)


def test_one_that_needs_pictures_is_refused_only_where_it_may_have_none() -> None:
    config = config_of()

    def first(losses: Any) -> Any:
        losses["guess"][0].item()
        return losses

    detector = built(config, lambda *_: Changed(first))
    assert try_out(detector, config, 3, empty=False) == ["guess"]
    with pytest.raises(UserError, match=r"fails on a batch without pictures .IndexError"):
        try_out(detector, config, 3, empty=True)
    renamed = Changed(lambda losses: losses if len(losses["guess"]) else {"b": losses["guess"]})
    with pytest.raises(UserError, match=r"the losses \['b'\] without pictures, not \['guess'\]"):
        try_out(built(config, lambda *_: renamed), config, 3, empty=True)


def test_its_own_error_is_its_own() -> None:
    config = config_of()
    with pytest.raises(ZeroDivisionError):
        try_out(built(config, lambda *_: Changed(lambda losses: 1 / 0)), config, 3, empty=False)
    with pytest.raises(ZeroDivisionError):
        built(config, lambda *_: 1 / 0)
    with pytest.raises(UserError, match=r"parts:tiny gives a dict; return a torch.nn.Module"):
        built(config, lambda *_: {})


def test_losses_that_change_in_mid_run() -> None:
    names = ["a", "b"]
    good = {"a": torch.zeros(2), "b": torch.zeros(2)}
    assert checked_losses(good, names, 2) == good
    for bad in ({"a": torch.zeros(2)}, {**good, "b": torch.zeros(3)}, [1.0]):
        with pytest.raises(TypeError, match=r"the detector"):
            checked_losses(bad, names, 2)


def test_pieces_that_are_recomputed() -> None:
    block = BasicBlock(4, 4)
    stages = nn.Sequential(nn.Sequential(block, BasicBlock(4, 4)), nn.Conv2d(4, 4, 1))
    assert [one.owner for one in segments(stages, "stages")] == [stages[0]]
    assert len(segments(stages, "blocks")) == 2
    named = Tiny(3)
    named.recompute_parts = lambda mode: [named.body]  # type: ignore[assignment]
    assert [one.owner for one in segments(named, "blocks")] == [named.body]
    told = _of_own(Tiny(3), config_of("memory.checkpoint=blocks"))
    assert told.startswith("recomputation none: memory.checkpoint=blocks finds no residual blocks")
    told = _of_own(stages, config_of("memory.checkpoint=auto"))
    assert "can't measure a detector of your own" in told and not segments(stages, "none")


def test_fine_tuning_leaves_layers_of_other_classes_new(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(Tiny(5).state_dict(), file)
    detector = Tiny(3)
    assert init_from(detector, str(file)) == ["classes.weight", "classes.bias"]
    loaded = torch.load(file, weights_only=True)
    assert torch.equal(detector.state_dict()["body.0.weight"], loaded["body.0.weight"])
    content = {"model": Tiny(3).state_dict(), "categories": ["a", "b", "c"]}
    torch.save(content, file)
    assert init_from(detector, str(file), ("a", "b", "c")) == []
    assert len(init_from(detector, str(file), ("a", "b", "d"))) == 2
    detector.class_layers = "none."
    with pytest.raises(UserError, match="give it an attribute class_layers"):
        init_from(detector, str(file), ("a", "b", "d"))
    torch.save(Tiny(5).state_dict(), file)
    with pytest.raises(UserError, match=r"only the predictor may differ"):
        init_from(detector, str(file))
