"""bench profile writes what the plan reads."""

from pathlib import Path

import pytest

from megdet_hvd.bench.profile import canvas_of
from megdet_hvd.bench.profile import main as bench
from megdet_hvd.plan.__main__ import main as plan
from megdet_hvd.plan.profiles import read_profile


def test_a_profile_of_this_machine_is_planned_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cpu.json"
    words = "--size 64 --images 1 --repeats 2 --backbone resnet18 --processes 1 --device cpu"
    assert bench([*words.split(), "--out", str(file), "--network", "25gbe"]) == 0
    profile = read_profile(file)
    (step,) = profile.steps
    assert step.early and step.seconds.origin == "measured" and "cores" in step.seconds.source
    assert 0 < step.seconds.value < 60 and profile.inference_s.value < step.seconds.value
    assert profile.inside_gb_s.origin == "assumed"
    assert (profile.backbone, profile.min_sizes, profile.max_size) == ("resnet18", (64,), 96)
    assert profile.bfloat16 is False and profile.frozen_stages == 0
    small = ["model.backbone=resnet18", "data.min_sizes=[64]", "data.max_size=96"]
    capsys.readouterr()
    assert plan(["--profile", str(file), "--gpus", "2", *small]) == 0
    assert "step times measured" in capsys.readouterr().out


@pytest.mark.tail
@pytest.mark.launch
def test_two_processes_measure_their_messages(tmp_path: Path) -> None:
    file = tmp_path / "cpu.json"
    words = "--size 64 --images 1 --repeats 2 --backbone resnet18 --processes 2 --device cpu"
    assert bench([*words.split(), "--out", str(file)]) == 0
    profile = read_profile(file)
    ((cycle, micros),) = profile.blocking_sum_us
    assert cycle == 1.0 and micros > 50 and profile.inside_gb_s.origin == "measured"
    assert profile.waits_from.startswith("measured, 2 processes")


def test_canvases_are_four_to_three() -> None:
    assert canvas_of(800) == (800, 1056) and canvas_of(64) == (64, 96) and canvas_of(40) == (32, 32)


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    for words in (
        ["--images", "0"],
        ["--size", "16"],
        ["--out", str(tmp_path)],
        ["--out", str(tmp_path / "no" / "x")],
    ):
        with pytest.raises(SystemExit) as left:
            bench(
                [
                    "--out",
                    str(tmp_path / "x"),
                    "--size",
                    "64",
                    "--images",
                    "1",
                    "--repeats",
                    "1",
                    "--backbone",
                    "resnet18",
                    "--processes",
                    "1",
                    "--device",
                    "cpu",
                    *words,
                ]
            )
        assert left.value.code == 2
