"""However many ranks share the pictures, the numbers are those of one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.evaluation.inference import share_out
from tests.evaluation.sets import imperfect, open_set, write_set
from tests.evaluation.test_coco_ap import evaluate
from tests.ranks import Launcher, run_ranks

SCRIPT = Path(__file__).with_name("over_ranks.py")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 8, 23])
@pytest.mark.parametrize("per_batch", [1, 2, 5])
def test_every_picture_is_taken_once(size: int, count: int, per_batch: int) -> None:
    aspects = [(7 * i % 5) / 3 + 0.5 for i in range(count)]
    shares = [share_out(aspects, per_batch, rank, size) for rank in range(size)]
    taken = [position for share in shares for batch in share for position in batch]
    assert sorted(taken) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    # A rank's batches in a row must fall into the same batches again when they are cut up.
    for share in shares:
        assert all(len(batch) == per_batch for batch in share[:-1])
    alone = share_out(aspects, per_batch, 0, 1)
    assert sorted(batch for share in shares for batch in share) == sorted(alone)


def run(
    tmp_path: Path, kind: str, np: int, *files: Path, launcher: Launcher = "horovodrun"
) -> tuple[dict[str, Any], str]:
    out = tmp_path / f"{kind} {np}.json"
    done = run_ranks(SCRIPT, np, kind, out, *files, launcher=launcher)
    assert done.returncode == 0, done.stdout
    return (json.loads(out.read_text()) if out.exists() else {}), done.stdout


def seen(output: str) -> list[list[int]]:
    lines = re.findall(r"rank (\d+) of \d+ saw \[([\d, ]*)\]", output)
    return [[int(n) for n in text.split(",") if n.strip()] for _, text in sorted(lines)]


@pytest.mark.parametrize(("np", "launcher"), [(2, "gloo"), (3, "horovodrun"), (4, "mpirun")])
def test_gathered_numbers_are_those_of_one_process(
    tmp_path: Path, np: int, launcher: Launcher
) -> None:
    """Five pictures over three ranks, and one of four ranks without any; two files, equal ids."""
    one = write_set(tmp_path / "one", [1, 2, 3], seed=2, sizes=((120, 90), (90, 140)))
    two = write_set(tmp_path / "two", [2, 3], seed=3)
    files = [Path(one.annotations), Path(two.annotations)]
    result, output = run(tmp_path, "known", np, *files, launcher=launcher)
    shares = seen(output)
    assert len(shares) == np
    assert sorted(n for share in shares for n in share) == [0, 1, 2, 3, 4]
    assert sorted(map(len, shares)) == {2: [2, 3], 3: [1, 2, 2], 4: [0, 1, 2, 2]}[np]
    index = open_set(one, two)
    found = imperfect(index, 7)
    expected = evaluate(index, found)
    assert result["stats"] == expected.stats
    assert result["per_class"] == expected.per_class
    assert {int(k): v for k, v in result["boxes"].items()} == {
        k: v.boxes.tolist() for k, v in found.items()
    }


def test_a_detector_finds_the_same_on_one_two_and_three_ranks(tmp_path: Path) -> None:
    source = write_set(tmp_path, range(10, 15), sizes=((120, 90), (90, 140), (80, 80)))
    file = Path(source.annotations)
    alone, _ = run(tmp_path, "real", 1, file, launcher="python")
    assert sum(map(len, alone["boxes"].values())) > 50
    for np in (2, 3):
        assert run(tmp_path, "real", np, file)[0] == alone


def test_an_unreadable_picture_is_named_on_all_ranks_or_skipped(tmp_path: Path) -> None:
    source = write_set(tmp_path, range(5), seed=1)
    damaged = tmp_path / "images" / "picture 3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    file = Path(source.annotations)
    _, output = run(tmp_path, "stop", 2, file)
    messages = re.findall(r"rank \d of 2 saw \[.*\]; (.+)", output)
    assert len(messages) == 2
    for message in messages:
        assert f"{damaged}: cannot be decoded" in message
        assert "data.unreadable_images=skip" in message
    result, _ = run(tmp_path, "skip", 2, file)
    assert result["unreadable"] == 1
    index = open_set(source)
    found = {k: v for k, v in imperfect(index, 7).items() if k != 3}
    assert result["stats"] == evaluate(index, found).stats
