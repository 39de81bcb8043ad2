"""The rendered scenes: the same bytes each time, made once, whole, and labelled rightly."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.config.schema import DataConfig, ScenesConfig
from megdet_hvd.data.factory import open_datasets
from megdet_hvd.data.scenes import cache
from megdet_hvd.data.scenes.cache import ensure_scenes, scenes_folder
from megdet_hvd.data.scenes.scene import render
from megdet_hvd.data.scenes.shapes import CLASSES, DISTRACTORS, Pose, mask_of
from megdet_hvd.errors import UserError

ROOT = Path(__file__).parents[2]


def config(folder: Path, train: int = 6, val: int = 3) -> ScenesConfig:
    return ScenesConfig(train_images=train, val_images=val, size=96, cache=str(folder))


def fingerprint(folder: Path) -> str:
    """One hash over the names and contents of a set."""
    whole = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return whole.hexdigest()


def test_twice_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path / "two $not_a_variable"))
    one = ensure_scenes(config(tmp_path / "one")).folder
    two = ensure_scenes(config(Path("${PLACE}"))).folder
    assert fingerprint(one) == fingerprint(two)
    sets = open_datasets(DataConfig(scenes=config(Path("${PLACE}"))), is_main=True, wait=Mock())
    assert sets.train.file(0).parent == tmp_path / "two $not_a_variable" / two.name / "train"
    names = {str(p.relative_to(one)) for p in one.rglob("*") if p.is_file()}
    assert names == {
        *(f"train/{k:06d}.jpg" for k in range(6)),
        *(f"val/{k:06d}.jpg" for k in range(3)),
        "annotations/train.json",
        "annotations/val.json",
        "manifest.json",
    }
    manifest = json.loads((one / "manifest.json").read_text())["sha256"]
    assert set(manifest) == names - {"manifest.json"}
    for name, digest in manifest.items():
        assert hashlib.sha256((one / name).read_bytes()).hexdigest() == digest


def test_a_smaller_set_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    small, large = (ensure_scenes(config(tmp_path, train=n)).folder for n in (4, 6))
    assert small != large
    for k in range(4):
        name = f"train/{k:06d}.jpg"
        assert (small / name).read_bytes() == (large / name).read_bytes()


def test_training_never_sees_a_validation_scene(tmp_path: Path) -> None:
    folder = ensure_scenes(config(tmp_path, train=30, val=30)).folder
    train = {p.read_bytes() for p in (folder / "train").iterdir()}
    val = {p.read_bytes() for p in (folder / "val").iterdir()}
    assert len(train) == len(val) == 30
    assert not train & val


@pytest.mark.parametrize("harm", ["flip a byte", "lose a picture", "lose the manifest", "cut json"])
def test_a_damaged_set_is_made_again(tmp_path: Path, harm: str) -> None:
    folder = ensure_scenes(config(tmp_path)).folder
    good = fingerprint(folder)
    picture, manifest = folder / "train" / "000003.jpg", folder / "manifest.json"
    if harm == "flip a byte":
        data = bytearray(picture.read_bytes())
        data[-20] ^= 1
        picture.write_bytes(bytes(data))
    elif harm == "lose a picture":
        picture.unlink()
    elif harm == "lose the manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:100])
    with pytest.raises(UserError, match="the rendered scenes are not in"):
        ensure_scenes(config(tmp_path), render=False)
    ensure_scenes(config(tmp_path))
    assert fingerprint(folder) == good
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {folder.name, folder.name + ".lock"}


def test_a_killed_rendering_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(split: str, number: int, size: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cache, "render", stop)
        with pytest.raises(KeyboardInterrupt):
            ensure_scenes(config(tmp_path))
    assert not scenes_folder(config(tmp_path)).exists()
    ensure_scenes(config(tmp_path))


def test_two_processes_at_once_render_once(tmp_path: Path) -> None:
    code = (
        "import logging, sys; logging.basicConfig(level='INFO');"
        "from megdet_hvd.config.schema import ScenesConfig;"
        "from megdet_hvd.data.scenes.cache import ensure_scenes;"
        "sys.stdin.readline();"
        f"c = ScenesConfig(train_images=40, val_images=5, size=96, cache={str(tmp_path)!r});"
        "print(ensure_scenes(c).folder)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [racer.communicate(timeout=200) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], results
    assert sum(err.count("rendering 45 scenes") for _, err in results) == 1
    assert len({out for out, _ in results}) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be kept in .*MEGDET_CACHE"):
        ensure_scenes(config(tmp_path / "file" / "below"))


def test_cache_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = ScenesConfig(train_images=6, val_images=3, size=96)
    monkeypatch.setenv("MEGDET_CACHE", str(tmp_path / "set"))
    assert scenes_folder(auto).parent == tmp_path / "set"
    monkeypatch.delenv("MEGDET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert scenes_folder(auto).parent == tmp_path / ".cache" / "megdet_hvd"
    other = ScenesConfig(train_images=6, val_images=3, size=128)
    assert scenes_folder(auto) != scenes_folder(other)


def test_one_process_renders_and_all_wait_once(tmp_path: Path) -> None:
    data = DataConfig(scenes=config(tmp_path))
    calls = []

    def wait_while_main_renders() -> None:
        calls.append("wait")
        ensure_scenes(data.scenes)

    sets = open_datasets(data, is_main=False, wait=wait_while_main_renders)
    assert calls == ["wait"]
    assert sets.val is not None
    assert len(sets.val) == 3
    assert sets.train.categories == sets.val.categories == CLASSES
    again = open_datasets(data, is_main=True, wait=lambda: calls.append("main"))
    assert calls == ["wait", "main"]
    assert again.train.file_names == sets.train.file_names


def test_nobody_waits_for_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = DataConfig(scenes=config(tmp_path / "file" / "below"))
    for is_main in (True, False):
        wait = Mock()
        with pytest.raises(UserError):
            open_datasets(data, is_main=is_main, wait=wait)
        wait.assert_called_once_with()


def test_what_is_in_the_scenes() -> None:
    scenes = [render("train", k, 160) for k in range(150)]
    labels = Counter(item.label for scene in scenes for item in scene.objects)
    assert set(labels) == {1, 2, 3, 4, 5, 6}
    assert min(labels.values()) > 0.5 * max(labels.values())
    assert 0 < sum(not scene.objects for scene in scenes) < 20
    assert {scene.picture.size for scene in scenes} == {(160, 160), (160, 120), (120, 160)}
    longer = [max(item.box[2:]) for scene in scenes for item in scene.objects]
    assert min(longer) <= 12
    assert max(longer) >= 90
    brightness = [np.asarray(scene.picture).mean() for scene in scenes]
    assert max(brightness) - min(brightness) > 120
    overlaps = 0
    for scene in scenes:
        for item in scene.objects:
            x, y, w, h = item.box
            assert 0 <= x < x + w <= scene.picture.width
            assert 0 <= y < y + h <= scene.picture.height
            assert 0 < item.area <= w * h
        boxes = [item.box for item in scene.objects]
        overlaps += sum(
            a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
            for i, a in enumerate(boxes)
            for b in boxes[:i]
        )
    assert overlaps > 100


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        # Share of a circle's bounding square that the shape covers, from its geometry.
        ("disc", 0.785),
        ("square", 0.7225),
        ("ring", 0.785 * (1 - 0.52**2)),
        ("triangle", 0.475 * 1.75 / 2),
        ("cross", (2 * 0.6 * 2 - 0.6**2) / 4),
        ("star", 5 * 1.05 * 0.41 * 0.5878 / 4),
    ],
)
def test_masks_cover_what_geometry_says(shape: str, share: float) -> None:
    """sin(36°) = 0.5878: ten triangles between the star's radii 1.05 and 0.41."""
    for angle, stretch in [(0.0, 1.0), (0.7, 1.2), (2.0, 0.8)]:
        pose = Pose(x=50.3, y=61.8, diameter=80, angle=angle, stretch=stretch, trait=0.5)
        mask = mask_of(shape, pose)
        covered = mask.alpha.sum() / 255
        assert covered == pytest.approx(share * 80**2, rel=0.04)
        rows, columns = np.nonzero(mask.alpha)
        assert abs(mask.left + columns.mean() - 50.3) < 10
        assert abs(mask.top + rows.mean() - 61.8) < 10
        assert ((mask.alpha > 0) & (mask.alpha < 255)).any()  # antialiased


def test_distractors_are_no_class() -> None:
    assert not set(CLASSES) & set(DISTRACTORS)
    pose = Pose(x=30, y=30, diameter=40, angle=0.3, stretch=1.0, trait=0.5)
    masks = {shape: mask_of(shape, pose).alpha.tobytes() for shape in (*CLASSES, *DISTRACTORS)}
    assert len(set(masks.values())) == len(masks)


def test_boxes_are_those_of_what_is_seen(tmp_path: Path) -> None:
    folder = ensure_scenes(config(tmp_path, train=8)).folder
    content = json.loads((folder / "annotations" / "train.json").read_text())
    for entry in content["images"]:
        with Image.open(folder / "train" / entry["file_name"]) as picture:
            assert picture.size == (entry["width"], entry["height"])
        scene = render("train", entry["id"] - 1, 96)
        boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == entry["id"]]
        assert boxes == [list(item.box) for item in scene.objects]
    assert [c["name"] for c in content["categories"]] == list(CLASSES)


def test_umask_and_working_folder_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o077)
    try:
        folder = ensure_scenes(config(Path("relative"))).folder
    finally:
        os.umask(before)
    assert (tmp_path / folder / "manifest.json").exists()
