import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import megdet_hvd
from megdet_hvd.config.schema import Config, DataConfig
from megdet_hvd.data.batch import Batch, Detections, ImageInfo
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.labels import Relabelled, labels_in, unmeasured
from megdet_hvd.evaluation.predictor import Picture, Predictor
from megdet_hvd.evaluation.trained import Trained, read_trained
from tests.evaluation.checkpoints import write_checkpoint
from tests.evaluation.sets import CATEGORY_IDS, NAMES, open_set, write_set


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def same(one: Detections, two: Detections) -> None:
    torch.testing.assert_close(one.boxes, two.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(one.scores, two.scores, rtol=0, atol=1e-6)
    assert torch.equal(one.labels, two.labels)


def test_paths_pictures_and_tensors_give_what_the_detector_gives(tmp_path: Path) -> None:
    detector = write_checkpoint(tmp_path / "best.pt").eval()
    pixels = noise(64, 80)
    Image.fromarray(pixels).save(tmp_path / "a picture.png")
    canvas = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    canvas[0, :, :, :80] = torch.from_numpy(pixels).permute(2, 0, 1)
    info = ImageInfo(0, 0, 0, 0, original_size=(64, 80), size=(64, 80))
    with torch.no_grad():
        (expected,) = detector(Batch(canvas, (info,), ()))
    assert len(expected.scores) > 5
    predictor = megdet_hvd.load_detector(str(tmp_path / "best.pt"), device="cpu")
    assert isinstance(predictor, Predictor)
    assert (predictor.categories, predictor.category_ids) == (NAMES, CATEGORY_IDS)
    pictures: list[Picture] = [
        tmp_path / "a picture.png",
        str(tmp_path / "a picture.png"),
        Image.fromarray(pixels),
        torch.from_numpy(pixels).permute(2, 0, 1),
    ]
    for picture in pictures:
        (found,) = predictor(picture)
        same(found, expected)
    for found in predictor(pictures):
        same(found, expected)
    assert predictor([]) == []


def test_boxes_are_in_pixels_of_the_upright_picture(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt")
    predictor = megdet_hvd.load_detector(tmp_path / "best.pt", device="cpu")
    upright = Image.fromarray(noise(400, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° to see it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    expected, found = predictor([upright, tmp_path / "turned.png"])
    same(found, expected)
    assert float(found.boxes[:, 3].max()) > 300
    assert float(found.boxes[:, 2].max()) <= 100


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt")
    predictor = megdet_hvd.load_detector(tmp_path / "best.pt", device="cpu")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.jpg: cannot be decoded"):
        predictor(tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg: cannot be decoded \(no such file\)"):
        predictor(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="is a folder"):
        predictor(tmp_path)
    with pytest.raises(TypeError, match=r"uint8 RGB \(3, H, W\), not torch.float32 \(3, 8, 8\)"):
        predictor(torch.zeros(3, 8, 8))


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="finds no usable CUDA GPU"):
            megdet_hvd.load_detector(tmp_path / "best.pt", device="cuda")
    with pytest.raises(UserError, match="expected auto, cpu, cuda"):
        megdet_hvd.load_detector(tmp_path / "best.pt", device="gpu")


def test_backbone_weights_of_training_are_not_looked_for(tmp_path: Path) -> None:
    gone = "model.backbone_weights=/folder/that/is/gone.pth"
    write = tmp_path / "best.pt"
    write_checkpoint(write)
    content = torch.load(write, weights_only=True)
    content["config"]["model"]["backbone_weights"] = gone.partition("=")[2]
    torch.save(content, write)
    assert megdet_hvd.load_detector(write, device="cpu").categories == NAMES


@pytest.mark.parametrize("frozen", [True, False])
def test_torchvisions_weights_detect_what_torchvision_detects(tmp_path: Path, frozen: bool) -> None:
    norm = torchvision.ops.FrozenBatchNorm2d if frozen else torch.nn.BatchNorm2d
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=norm)
    peer = FasterRCNN(backbone, 5, min_size=160, max_size=160).eval()
    with torch.no_grad():  # scores well apart
        peer.roi_heads.box_predictor.cls_score.weight.mul_(20)
    torch.save(peer.state_dict(), tmp_path / "fasterrcnn.pth")
    pixels = torch.from_numpy(noise(160, 128)).permute(2, 0, 1)
    with torch.no_grad():
        (expected,) = peer([pixels / 255])
    assert len(expected["scores"]) > 5
    trained = read_trained(tmp_path / "fasterrcnn.pth")
    assert trained.config.model.norm == ("frozen" if frozen else "bn")
    data = DataConfig(min_sizes=(128,), max_size=160)
    predictor = Predictor(trained.build(), trained.categories, trained.category_ids, data)
    (found,) = predictor(pixels)
    same(found, Detections(expected["boxes"], expected["scores"], expected["labels"]))
    assert predictor.categories == ("class 1", "class 2", "class 3", "class 4")


def test_torchvisions_coco_labels_become_the_data_sets(tmp_path: Path) -> None:
    """91 outputs: COCO's own ids, of which ten are unused, and ε = 0 where BN is frozen."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    peer = FasterRCNN(backbone, 91)
    state = {k: v for k, v in peer.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "coco.pth")
    trained = read_trained(tmp_path / "coco.pth")
    assert trained.config.model.norm_eps == 0
    assert read_trained(tmp_path / "coco.pth", norm_eps=1e-5).config.model.norm_eps == 1e-5
    used = trained.used()
    assert len(used) == 80
    assert (used[1], used[18], used[90]) == ("person", "dog", "toothbrush")
    source = write_set(tmp_path, [1], categories=used)
    table = labels_in(open_set(source), trained)
    assert table.tolist()[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 12]  # 12 is unused
    assert table[90] == 80

    class Two(torch.nn.Module):
        def forward(self, batch: Batch) -> list[Detections]:
            labels = torch.tensor([90, 12, 18])
            return [Detections(torch.arange(12.0).reshape(3, 4), torch.ones(3), labels)]

    (found,) = Relabelled(Two(), table)(Batch(torch.zeros(0), (), ()))
    assert found.labels.tolist() == [80, 17]
    assert found.boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]


def test_other_categories_are_refused_and_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt")
    source = write_set(tmp_path, [1], categories={3: "cat", 17: "traffic light", 44: "hound"})
    with pytest.raises(UserError, match="category 44: 'dog' against 'hound'"):
        labels_in(open_set(source), read_trained(tmp_path / "best.pt"))


def trained_on(names: Sequence[str], ids: Sequence[Any], coco: bool = False) -> Trained:
    """A detector's categories, without the detector."""
    return Trained(Path("best.pt"), Config(), tuple(names), tuple(ids), True, {}, coco=coco)


def test_a_class_named_as_cocos_unused_ids_is_a_class(tmp_path: Path) -> None:
    source = write_set(tmp_path, [1], categories={1: "N/A", 2: "rod"})
    assert labels_in(open_set(source), trained_on(["N/A", "rod"], [1, 2])).tolist() == [0, 1, 2]
    assert trained_on(["N/A", "rod"], [1, 2], coco=True).used() == {2: "rod"}


def test_ids_that_are_texts_find_their_classes(tmp_path: Path) -> None:
    categories: Any = {"10": "cat", "9": "dog"}
    index = open_set(write_set(tmp_path, [1], categories=categories))
    assert labels_in(index, trained_on(["dog", "cat"], ["9", "10"])).tolist() == [0, 2, 1]
    with pytest.raises(UserError, match="category '10': missing against 'cat'"):
        labels_in(index, trained_on(["cat", "dog"], [10, "9"]))


def test_a_heading_that_training_used_is_dropped_where_it_has_no_truth(tmp_path: Path) -> None:
    source = write_set(tmp_path, [1, 2], categories={1: "cod"})
    content = json.loads(Path(source.annotations).read_text())
    content["categories"] = [
        {"id": 0, "name": "cod", "supercategory": "none"},
        {"id": 1, "name": "cod", "supercategory": "cod"},
    ]
    Path(source.annotations).write_text(json.dumps(content))
    index = open_set(source)
    assert index.category_ids == (1,)
    assert labels_in(index, trained_on(["cod (id 0)", "cod"], [0, 1])).tolist() == [0, 0, 1]
    assert labels_in(index, trained_on(["cod"], [1])).tolist() == [0, 1]


def test_classes_that_the_data_set_lacks_are_not_measured(tmp_path: Path) -> None:
    index = open_set(write_set(tmp_path, [1, 2], categories={3: "cat", 44: "dog"}))
    trained = trained_on(["cat", "light", "dog"], [3, 17, 44])
    assert labels_in(index, trained).tolist() == [0, 1, 0, 2]
    assert unmeasured(index, trained) == ["it declares no category 17 'light': it is not measured"]
    assert unmeasured(index, trained_on(["cat", "dog"], [3, 44])) == []
