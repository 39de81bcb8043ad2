"""Measures of the user's own stand beside COCO's numbers, and cost at most themselves."""

import logging
from typing import Any

import numpy as np
import pytest

from megdet_hvd.evaluation.measures import OwnMeasure, own_numbers

FOUND: Any = object()


def gives(value: Any) -> OwnMeasure:
    return lambda found: value


def test_numbers_of_all_measures_by_their_names() -> None:
    measures = [("mine:a", gives({"x": 1})), ("mine:b", gives({"y": np.float32(0.5)}))]
    assert own_numbers(measures, FOUND) == {"x": 1.0, "y": 0.5}


def fails(found: Any) -> dict[str, float]:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("measure", "told"),
    [
        (fails, "failed (KeyError: 'x')"),
        (gives([1.0]), "it gives a list; return a dict of name to number"),
        (gives({"z": "high"}), "it gives 'z': 'high'; return"),
        (gives({"z": 1.0, "AP": 0.9}), "the number AP is there already"),
    ],
)
def test_what_goes_wrong_costs_a_warning(
    measure: OwnMeasure, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "megdet_hvd"):
        found = own_numbers([("mine:bad", measure), ("mine:b", gives({"y": 1}))], FOUND, ["AP"])
    assert found == {"y": 1.0}
    (warning,) = caplog.messages
    assert warning.startswith("warning: the measure mine:bad") and told in warning


def test_the_first_of_two_that_give_the_same_number_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    measures = [("mine:a", gives({"x": 1})), ("mine:b", gives({"x": 2, "y": 3}))]
    with caplog.at_level(logging.WARNING, "megdet_hvd"):
        assert own_numbers(measures, FOUND) == {"x": 1.0}
    assert "the measure mine:b failed (ValueError: the number x is there already" in caplog.text
