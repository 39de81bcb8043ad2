"""Metrics that grow: each line read once, however often they are drawn; and thinned evenly."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.report.curves import draw_curves
from megdet_hvd.report.growing_metrics import GrowingMetrics
from megdet_hvd.report.metrics_file import MetricsFile, read_metrics, read_standing


def text(kind: str, iteration: int, **values: Any) -> str:
    return json.dumps({"kind": kind, "iteration": iteration, **values}) + "\n"


def append(file: Path, *lines: str) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write("".join(lines))


def iterations(records: list[dict[str, Any]]) -> list[int]:
    return [record["iteration"] for record in records]


def test_each_line_is_read_once(tmp_path: Path) -> None:
    """Thirty epochs of ten lines: 330 lines are parsed, where 5,115 would be."""
    file = tmp_path / "metrics.jsonl"
    growing = GrowingMetrics(file)
    assert growing.read().train == []
    with mock.patch("megdet_hvd.report.metrics_file.json.loads", wraps=json.loads) as parsed:
        for epoch in range(30):
            for step in range(1, 11):
                append(file, text("train", 10 * epoch + step, loss=1.0))
            append(file, text("eval", 10 * epoch + 10, AP=0.1))
            found = growing.read()
        assert parsed.call_count == 330
    assert found == read_metrics(file)


def test_what_is_kept_is_bounded_and_spread_over_the_run(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    growing = GrowingMetrics(file, most=20)
    for start in range(0, 1000, 100):
        append(file, *(text("train", i) for i in range(start, start + 100)))
        append(file, text("eval", start + 100))
        found = growing.read()
        kept = iterations(found.train)
        assert 10 <= len(kept) <= 21
        assert kept[0] == 0 and kept[-1] == start + 99, "the newest is among them"
        steps = {b - a for a, b in pairwise(kept[:-1])}
        assert len(steps) == 1, "evenly"
    assert iterations(found.eval) == list(range(100, 1001, 100)), "no evaluation is left out"


def test_a_line_that_is_being_written_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    growing = GrowingMetrics(file)
    whole = text("train", 2, loss=1.0)
    append(file, text("train", 1), whole[:9])
    assert iterations(growing.read().train) == [1]
    append(file, whole[9:])
    assert iterations(growing.read().train) == [1, 2]
    append(file, '{"kind": "tr', "\n" + text("train", 3))  # the disk was full in between
    assert iterations(growing.read().train) == [1, 2, 3]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_a_resume_has_cut_is_read_anew(tmp_path: Path, replaced: bool) -> None:
    file = tmp_path / "metrics.jsonl"
    append(file, *(text("train", i) for i in range(1, 10)), text("eval", 9))
    growing = GrowingMetrics(file)
    growing.read()
    if replaced:
        other = tmp_path / "other"
        append(other, *(text("train", i, loss=2.0) for i in range(1, 30)))
        other.rename(file)
    else:
        file.write_text(text("train", 1, loss=2.0), encoding="utf-8")
    assert growing.read() == read_metrics(file)
    file.unlink()
    assert growing.read().train == []


def test_where_a_run_stands_is_read_from_its_last_line_and_its_evaluations(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_standing(file).train == []
    for start in range(0, 500, 50):
        append(file, *(text("train", i, loss=1.0) for i in range(start, start + 50)))
        append(file, text("eval", start + 49, AP=start / 1000))
    append(file, text("train", 500, loss=0.5), text("train", 501)[:7])
    whole = read_metrics(file)
    with mock.patch("megdet_hvd.report.metrics_file.json.loads", wraps=json.loads) as parsed:
        found = read_standing(file)
        assert parsed.call_count == 10 + 2
    assert found.train == whole.train[-1:] and found.eval == whole.eval


def test_where_a_run_stands_is_told_behind_any_number_of_torn_lines(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append(file, text("train", 7), text("eval", 7), *['{"kind": "tr\n'] * 3, "\0" * 50)
    standing = read_standing(file)
    assert iterations(standing.train) == iterations(standing.eval) == [7]


def test_numbers_that_are_none_are_null_to_whoever_draws_them(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append(file, text("train", 1, loss=float("nan"), rate=float("inf")), text("train", 2, loss=1.0))
    draw_curves(read_metrics(file), tmp_path / "curves.png")
    assert read_metrics(file).train[0] == {
        **{"kind": "train", "iteration": 1},
        **{"loss": None, "rate": None},
    }


@pytest.mark.parametrize("read", [read_metrics, read_standing, lambda f: GrowingMetrics(f).read()])
def test_bytes_that_are_no_text_cost_their_line(
    tmp_path: Path, read: Callable[[Path], MetricsFile]
) -> None:
    file = tmp_path / "metrics.jsonl"
    odd = (b'"\xff"\n', b'{"kind": "train", "iteration": -1}\n', b"\xff\xfe\0\n")
    file.write_bytes(b"".join((*odd, text("train", 5).encode(), *odd[:1])))
    assert iterations(read(file).train) == [5]


def test_a_long_run_keeps_two_thousand_lines(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append(file, *(text("train", i) for i in range(4500)))
    kept = iterations(GrowingMetrics(file).read().train)
    assert 1000 <= len(kept) <= 2001 and kept[-1] == 4499


def test_a_resume_that_could_not_cut_the_file_leaves_no_former_lines_in_curves(
    tmp_path: Path,
) -> None:
    file = tmp_path / "metrics.jsonl"
    growing = GrowingMetrics(file, most=20)
    append(file, *(text("train", i, loss=9.0) for i in range(100)))
    growing.read()
    append(file, *(text("train", i, loss=1.0) for i in range(51, 120)))
    found = growing.read().train
    whole = {one["iteration"]: one for one in read_metrics(file).train}
    assert len(found) >= 10 and all(one == whole[one["iteration"]] for one in found)
    assert iterations(found)[-1] == 119
