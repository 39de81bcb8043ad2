import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from megdet_hvd.bench import loader as bench_loader
from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.turns import SideTimes
from megdet_hvd.data.batch import Batch
from megdet_hvd.errors import RunError
from tests.data.made import box, image, write_set

SMALL = "--min-size 96 --max-size 160 --turns 2"


def test_both_sides_are_printed_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "loader.json"
    assert main([*f"loader --images 4 {SMALL}".split(), f"--json={file}"]) == 0
    first, heading, *sides, ends, processes = capsys.readouterr().out.splitlines()
    assert first.startswith("1 cores, 1 threads") and "4 pictures of 0.1" in first
    assert heading.split()[0] == "pictures/s"
    assert [side.split("  ")[0] for side in sides] == ["ours", "ours, bytes", "torchvision"]
    assert "normalised floats" in ends and processes.startswith("a loader process takes ")
    record = json.loads(file.read_text())
    assert 0 <= record["loader_process_ms"] < 1000 > record["training_process_ms"] > 0
    assert record["pictures"] == 4 and record["settings"]["min_size"] == 96
    assert [len(side["clock_s"]) for side in record["sides"]] == [2, 2, 2]


def test_files_of_ones_own_without_boxes_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [image(k, width=60 + 20 * (k % 2), height=70) for k in range(1, 6)]
    source = write_set(tmp_path, pictures, [box(1, 2, [1, 1, 20, 20])])
    words = f"loader --annotations {source.annotations} --pictures {source.images} {SMALL}"
    assert main(words.split()) == 0
    assert "; 4 pictures of" in capsys.readouterr().out, "whole batches only"


def test_other_canvases_end_it() -> None:
    batch = Batch(torch.zeros(2, 3, 96, 128, dtype=torch.uint8), (), ())
    for shape in ((2, 3, 96, 128), (2, 3, 96, 96)):
        bench_loader.check_equal_work(iter([batch]), iter([torch.zeros(shape)]))
    for shape in ((2, 3, 96, 64), (1, 3, 96, 128)):
        with pytest.raises(RunError, match="the sides' canvases of images"):
            bench_loader.check_equal_work(iter([batch]), iter([torch.zeros(shape)]))


def test_an_unreadable_picture_and_wrong_words_end_it(tmp_path: Path) -> None:
    source = write_set(tmp_path, [image(1), image(2)], [])
    (tmp_path / "pictures" / "2.png").write_bytes(b"no picture")
    options = Namespace(min_size=96, max_size=160, batch=2)
    index = bench_loader.read_set(Path(source.annotations), Path(source.images))
    with pytest.raises(RunError, match=r"2\.png"):
        list(bench_loader.our_batches(index, options, 1)())
    for words in ("--turns 0", "--images 1", "--pictures x"):
        with pytest.raises(SystemExit):
            main(["loader", *words.split()])


def test_pictures_a_second_and_ratios() -> None:
    sides = [SideTimes("a", (1.0, 3.0, 2.0), (4.0,) * 3), SideTimes("b", (8.0,) * 3, (2.0,) * 3)]
    _, first, second = bench_loader.speed_table(sides, 8)
    assert first.split() == ["a", "4.0", "1.00", "2.0", "1.00"]
    assert second.split() == ["b", "1.0", "4.00", "4.0", "0.50"]
