"""The files in ``configs/``: they load, derive, and their notes say what the code computes."""

import re
from pathlib import Path

import pytest

from megdet_hvd.config.derive import derive
from megdet_hvd.config.embedded import EMBEDDED
from megdet_hvd.config.load import load_config, to_yaml
from megdet_hvd.config.yaml_text import parse_yaml

FOLDER = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
COCO_TRAIN2017 = 118287


def test_the_files_are_these() -> None:
    assert [file.name for file in FILES] == [
        "bccd.yaml",
        "coco_016.yaml",
        "coco_032.yaml",
        "coco_064.yaml",
        "coco_128.yaml",
        "coco_256.yaml",
        "coco_base.yaml",
        "scenes.yaml",
    ]


def test_scenes_is_the_embedded_default() -> None:
    file = FOLDER / "scenes.yaml"
    assert parse_yaml(file.read_text(encoding="utf-8")) == EMBEDDED
    assert load_config(file) == load_config(None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_resolved_text_reads_back_equal(file: Path, tmp_path: Path) -> None:
    found = load_config(file)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(to_yaml(found), encoding="utf-8")
    assert load_config(resolved) == found


@pytest.mark.parametrize(
    ("name", "images", "machines"),
    [
        ("scenes", 1200, [1]),
        ("scenes", 1200, [2]),
        ("scenes", 1200, [8]),
        ("bccd", 205, [2]),
        ("bccd", 205, [4]),
        *[(f"coco_{batch:03}", COCO_TRAIN2017, [8]) for batch in (16, 32, 64, 128, 256)],
        *[(f"coco_{batch:03}", COCO_TRAIN2017, [8] * 2) for batch in (16, 32, 64, 128, 256)],
        ("coco_128", COCO_TRAIN2017, [8] * 16),
        ("coco_256", COCO_TRAIN2017, [8] * 16),
    ],
)
def test_each_file_derives(name: str, images: int, machines: list[int]) -> None:
    config = load_config(FOLDER / f"{name}.yaml")
    found = derive(config, images, sum(machines), machines)
    share = config.global_batch // sum(machines)
    assert found.images_per_process_per_pass == share
    assert found.bn_images == tuple(share * size for size in machines)
    assert 0 < found.warmup_iterations < found.milestone_iterations[0]
    assert found.milestone_iterations[-1] < found.end_iteration


@pytest.mark.parametrize("batch", [16, 32, 64, 128, 256])
def test_the_arithmetic_in_the_headers(batch: int) -> None:
    file = FOLDER / f"coco_{batch:03}.yaml"
    text = file.read_text(encoding="utf-8")
    notes = re.search(
        r"Arithmetic (\d+) processes × (\d+) images; peak rate 0.02 × (\d+)/16 = ([\d.]+);\n"
        r"# +drops at iterations (\d+) and (\d+), end at (\d+);\n"
        r"# +BN over (\d+) × (\d+) = (\d+) images",
        text,
    )
    assert notes is not None
    processes, images, numerator, rate, first, second, end, ranks, each, bn = notes.groups()
    assert f"-np {processes} " in text
    config = load_config(file)
    found = derive(config, COCO_TRAIN2017, int(processes), [8] * (int(processes) // 8))
    assert config.global_batch == batch == int(numerator)
    assert found.images_per_process_per_pass == int(images) == int(each)
    assert found.peak_rate == float(rate)
    assert found.milestone_iterations == (int(first), int(second))
    assert found.end_iteration == int(end)
    assert set(found.bn_images) == {int(bn)} == {int(ranks) * int(each)}


def test_the_papers_settings() -> None:
    config = load_config(FOLDER / "coco_256.yaml")
    assert (config.model.backbone, config.model.backbone_weights) == ("resnet50", "IMAGENET1K_V1")
    assert (config.model.norm, config.bn.scope) == ("cgbn", "machine")
    assert (config.learning.base_rate, config.learning.base_batch) == (0.02, 16)
    assert (config.learning.momentum, config.learning.weight_decay) == (0.9, 1e-4)
    assert config.learning.policy == "normal"
    assert (config.data.min_sizes, config.data.max_size) == ((800,), 1333)
    assert config.data.train[0].images == "${COCO_ROOT}/train2017"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_begins_with_a_lab_note(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    header = text[: text.index("\n\n")]
    assert header.startswith("# ")
    words = ["Paper"] if file.stem == "coco_base" else ["Command", "Paper", "Measured", "Cost"]
    assert [word for word in words if f"\n# {word}" not in header] == []
