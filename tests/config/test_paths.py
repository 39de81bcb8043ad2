"""Paths with ``~`` and variables in them."""

from pathlib import Path

import pytest

from megdet_hvd.config.paths import expand_path
from megdet_hvd.errors import UserError


def test_variables_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCO_ROOT", "/data/my $coco")
    monkeypatch.setenv("HOME", "/home/u")
    assert expand_path("${COCO_ROOT}/train2017") == Path("/data/my $coco/train2017")
    assert expand_path("$COCO_ROOT/a b.json") == Path("/data/my $coco/a b.json")
    assert expand_path("~/x") == Path("/home/u/x")
    assert expand_path("runs") == Path("runs")
    assert expand_path("cost$") == Path("cost$")


def test_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COCO_ROOT", raising=False)
    with pytest.raises(UserError) as error:
        expand_path("${COCO_ROOT}/train2017", "data.train.0.images")
    assert str(error.value) == (
        "data.train.0.images=${COCO_ROOT}/train2017: the environment variable COCO_ROOT is not "
        "set; set it (export COCO_ROOT=/some/folder), or write the path out"
    )


def test_empty_path() -> None:
    with pytest.raises(UserError, match="output is empty: give the path"):
        expand_path("  ", "output")
