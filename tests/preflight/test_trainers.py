"""Whom a preflight of a run that is carried on counts: not the evaluators of a pipeline."""

from types import SimpleNamespace
from typing import Any

import pytest

from megdet_hvd.config.load import load_config
from megdet_hvd.preflight.__main__ import _trainers
from megdet_hvd.train import TrainingPlan


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--config", "x=y.yaml", "pipeline.evaluators=2"), ((0, 1),)),
        (("pipeline.evaluators=3",), ((0,),)),
        (("--config", "x.yaml", "seed=3"), ((0, 1), (2, 3))),  # its default is no pipeline
    ],
)
def test_evaluators_are_left_out_where_the_words_name_them(
    words: tuple[str, ...], expected: tuple[tuple[int, ...], ...]
) -> None:
    given = [word for word in words if word.startswith(("pipeline", "seed"))]
    plan = TrainingPlan(load_config(None, given), None, None, words=words)
    world: Any = SimpleNamespace(machines=((0, 1), (2, 3)), size=4)
    assert _trainers(plan, world) == expected
