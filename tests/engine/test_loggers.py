"""Loggers of the user's own: every line, and never the run."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.config.schema import Config
from megdet_hvd.engine.run_folder.loggers import MetricsLogger, MetricsLoggers
from megdet_hvd.engine.run_folder.metrics import Metrics
from megdet_hvd.errors import UserError
from tests.extending.parts import Lines


class Broken(Lines):
    """Fails at its second line."""

    def write(self, line: Mapping[str, Any]) -> None:
        super().write(line)
        if line["iteration"] == 2:
            raise ValueError("full")
        line["kind"] = "changed"  # type: ignore[index]


def unwell(run_folder: Path, config: Config, iteration: int) -> MetricsLogger:
    raise ConnectionError("no network")


def test_each_gets_every_line_until_it_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    loggers = MetricsLoggers.opened(
        [
            ("mine:broken", lambda folder, *more: Broken(folder / "broken", *more)),
            ("mine:unwell", unwell),
            ("mine:Lines", Lines),
        ],
        tmp_path,
        Config(),
        5,
    )
    metrics = Metrics(tmp_path / "m.jsonl", None, 5, loggers=loggers)
    with caplog.at_level(logging.WARNING, "megdet_hvd"):
        for iteration in (1, 2, 3):
            metrics.write("train", iteration, loss=float("nan"))
    metrics.close()
    metrics.close()  # once is enough
    assert (tmp_path / "lines.txt").read_text().split("\n") == [
        *("from 5", "train 1", "train 2", "train 3", "end", "")
    ]
    broken = (tmp_path / "broken" / "lines.txt").read_text().split("\n")
    assert broken == ["from 5", "train 1", "train 2", "end", ""]
    (warning,) = [one for one in caplog.messages if "mine:broken" in one]
    assert warning.startswith("warning: the logger mine:broken can't be used (ValueError: full)")
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("name", ["self", "line", "values", "a b/\n", ""])
def test_a_number_of_any_name_has_its_place(tmp_path: Path, name: str) -> None:
    """Names come from measures and detectors of the user's own."""
    given: dict[str, Any] = {name: 0.5}
    Metrics(tmp_path / "m.jsonl", None, 0).write("eval", 1, **given)
    found = json.loads((tmp_path / "m.jsonl").read_text())
    assert found == {"kind": "eval", "iteration": 1, **given}


def test_what_can_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log\.loggers: mine:build gives a dict, which has no"):
        MetricsLoggers.opened([("mine:build", lambda *_: {})], tmp_path, Config(), 0)  # type: ignore[list-item]
