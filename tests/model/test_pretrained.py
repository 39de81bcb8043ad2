"""ImageNet weights by name and from a file, and the errors that say how to get them."""

import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18, resnet50

from megdet_hvd.errors import UserError
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.pretrained import fetch_backbone_weights
from tests.model.samples import build, slim


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(9)
    weights: dict[str, Tensor] = resnet18().state_dict()
    return weights


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of PyTorch, and no network."""

    def refuse(*args: object, **settings: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def assert_loaded(weights: str, state: dict[str, Tensor], **settings: object) -> None:
    body = build(slim(backbone_weights=weights, **settings)).backbone.body.state_dict()
    assert body
    for name, value in body.items():
        assert torch.equal(value, state[name]), name


def test_from_a_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    contents = {
        "plain": state,
        "wrapped": {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
        "of a detector": {f"backbone.body.{k}": v for k, v in body.items()}
        | {"rpn.head.cls_logits.bias": torch.zeros(3)},
        "without counters": {k: v for k, v in state.items() if "num_batches" not in k},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pth")
        assert_loaded(str(tmp_path / f"{name}.pth"), state)
    assert_loaded(str(tmp_path / "plain.pth"), state, norm="frozen")
    assert_loaded(str(tmp_path / "plain.pth"), state, frozen_stages=3)


def test_by_name_from_the_cache(state: dict[str, Tensor], offline: Path) -> None:
    entry = ResNet18_Weights.IMAGENET1K_V1
    torch.save(state, offline / Path(entry.url).name)
    for name in ("IMAGENET1K_V1", "DEFAULT", "ResNet18_Weights.IMAGENET1K_V1"):
        assert_loaded(name, state)


class Evil:
    """Whoever unpickles it, writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_a_strangers_file_in_the_cache_runs_nothing(offline: Path, tmp_path: Path) -> None:
    """TORCH_HOME may be a folder that many share."""
    entry = ResNet18_Weights.IMAGENET1K_V1
    torch.save({"conv1.weight": Evil(tmp_path / "ran")}, offline / Path(entry.url).name)
    with pytest.raises(UserError, match=r"holds more than weights .* remove it"):
        build(slim(backbone_weights="IMAGENET1K_V1"))
    assert not (tmp_path / "ran").exists()


def test_fetched_beforehand_by_name_alone(
    state: dict[str, Tensor], offline: Path, tmp_path: Path
) -> None:
    fetch_backbone_weights(slim(backbone_weights=None))
    fetch_backbone_weights(slim(backbone_weights=str(tmp_path / "not there yet.pth")))
    with pytest.raises(UserError, match="fetch backbone"):
        fetch_backbone_weights(slim(backbone_weights="IMAGENET1K_V1"))
    torch.save(state, offline / Path(ResNet18_Weights.IMAGENET1K_V1.url).name)
    fetch_backbone_weights(slim(backbone_weights="IMAGENET1K_V1"))


def test_offline_names_both_ways(offline: Path) -> None:
    with pytest.raises(UserError) as error:
        build(slim(backbone_weights="IMAGENET1K_V1"))
    text = str(error.value)
    assert "python -m megdet_hvd.data fetch backbone" in text
    assert "model.backbone_weights=FILE" in text
    assert Path(ResNet18_Weights.IMAGENET1K_V1.url).name in text
    assert str(offline) in text
    config = slim(backbone_weights="IMAGENET1K_V1")
    build_detector(config, 3, local_norm(config), seed=0, pretrained=False)


def test_bad_weights(state: dict[str, Tensor], tmp_path: Path) -> None:
    def message(weights: Path | str, **settings: object) -> str:
        with pytest.raises(UserError) as error:
            build(slim(backbone_weights=str(weights), **settings))
        return str(error.value)

    assert "names for resnet18 are IMAGENET1K_V1" in message("IMAGENET_V1")
    assert "no such file" in message(tmp_path / "nothing.pth")
    assert "NOT_SET_ANYWHERE is not set" in message("${NOT_SET_ANYWHERE}/resnet18.pth")

    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 not weights")
    assert "not a readable PyTorch weights file" in message(tmp_path / "damaged.pth")
    torch.save(state, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:20000])
    assert "not a readable PyTorch weights file" in message(tmp_path / "cut.pth")
    torch.save(Path, tmp_path / "code.pth")
    assert "it holds objects of pathlib.Path" in message(tmp_path / "code.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert "holds no weights" in message(tmp_path / "empty.pth")

    torch.save(resnet50().state_dict(), tmp_path / "deep.pth")
    text = message(tmp_path / "deep.pth")
    assert "layer1.0.conv1.weight is (64, 64, 1, 1), the model has (64, 64, 3, 3)" in text
    assert "set model.backbone" in text

    torch.save(state, tmp_path / "plain.pth")
    assert "set model.norm=frozen" in message(tmp_path / "plain.pth", norm="none")
