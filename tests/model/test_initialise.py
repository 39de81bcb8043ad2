"""Exact loading refuses a mismatch; fine-tuning renews the predictor and names it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from megdet_hvd.errors import UserError
from megdet_hvd.model.initialise import init_from, load_exactly, load_for_fine_tuning
from tests.model.samples import build, slim

PREDICTOR = [
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.box_predictor.cls_score.bias",
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.box_predictor.bbox_pred.bias",
]


@pytest.fixture(scope="module")
def source() -> dict[str, Tensor]:
    return build(slim(), seed=11).state_dict()


def test_other_classes_renew_the_predictor(source: dict[str, Tensor]) -> None:
    detector = build(slim(), classes=7)
    fresh = {name: detector.state_dict()[name].clone() for name in PREDICTOR}
    assert load_for_fine_tuning(detector, source, "x") == PREDICTOR
    for name, value in detector.state_dict().items():
        assert torch.equal(value, fresh[name] if name in PREDICTOR else source[name]), name


def test_equal_classes_keep_it(source: dict[str, Tensor]) -> None:
    detector = build(slim())
    assert load_for_fine_tuning(detector, source, "x") == []
    for name, value in detector.state_dict().items():
        assert torch.equal(value, source[name]), name


def test_weights_without_a_predictor_renew_it(source: dict[str, Tensor]) -> None:
    without = {k: v for k, v in source.items() if k not in PREDICTOR}
    assert load_for_fine_tuning(build(slim()), without, "x") == PREDICTOR


@pytest.mark.parametrize("norm", ["frozen", "cgbn"])
def test_norms_of_other_kinds_are_filled(norm: str, source: dict[str, Tensor]) -> None:
    """From BN to frozen statistics and back; only the step counters come or go."""
    detector = build(slim(norm=norm, frozen_stages=1))
    load_exactly(detector, source, "x")
    mean = "backbone.body.layer2.0.bn1.running_mean"
    assert torch.equal(detector.state_dict()[mean], source[mean])
    back = build(slim())
    load_exactly(back, detector.state_dict(), "x")
    assert torch.equal(back.state_dict()[mean], source[mean])


def test_anything_else_is_refused_and_nothing_loaded(source: dict[str, Tensor]) -> None:
    wide = build(slim(fpn_channels=48))
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    for load in (load_exactly, load_for_fine_tuning):
        with pytest.raises(UserError) as error:
            load(wide, source, "model.init_from=old.pt")
        text = str(error.value)
        assert text.startswith("model.init_from=old.pt does not fit the model")
        assert (
            "backbone.fpn.inner_blocks.0.0.weight is (32, 64, 1, 1), the model has (48, 64, 1, 1)"
            in text
        )
    for name, value in wide.state_dict().items():
        assert torch.equal(value, before[name])


def test_resume_and_evaluate_refuse_other_classes(source: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match=r"4 of another shape .*cls_score.weight is \(4, 64\)"):
        load_exactly(build(slim(), classes=7), source, "best.pt")
    extra = source | {"mask.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 that the model lacks \(mask.weight\)"):
        load_exactly(build(slim()), extra, "best.pt")
    few = {k: v for k, v in source.items() if k != "backbone.body.conv1.weight"}
    with pytest.raises(UserError, match=r"1 missing \(backbone.body.conv1.weight\)"):
        load_exactly(build(slim()), few, "best.pt")


def test_init_from_reads_our_checkpoints_and_torchvisions_old_names(
    source: dict[str, Tensor], tmp_path: Path
) -> None:
    old = {}
    for name, value in source.items():
        if "fpn." in name:
            name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        old[name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")] = value
    assert "backbone.fpn.inner_blocks.3.weight" in old
    assert "rpn.head.conv.bias" in old
    torch.save(old, tmp_path / "old.pth")
    torch.save({"format": "megdet_hvd", "model": source, "iteration": 4}, tmp_path / "ours.pt")
    for file in ("old.pth", "ours.pt"):
        detector = build(slim())
        assert init_from(detector, str(tmp_path / file)) == []
        for name, value in detector.state_dict().items():
            assert torch.equal(value, source[name]), name
    with pytest.raises(UserError, match=r"model\.init_from=.*none\.pt: no such file"):
        init_from(build(slim()), str(tmp_path / "none.pt"))


def test_as_many_other_classes_renew_the_predictor(
    source: dict[str, Tensor], tmp_path: Path
) -> None:
    """Rows of cells would else start as those of rods, without a word."""
    file = str(tmp_path / "best.pt")
    names = [f"class {k}" for k in range(1, len(source[PREDICTOR[1]]))]
    torch.save({"model": source, "categories": names}, file)
    assert init_from(build(slim()), file, names) == []
    assert init_from(build(slim()), file, names[::-1]) == PREDICTOR
    torch.save(source, file)
    assert init_from(build(slim()), file, names) == [], "whose they are isn't known"
