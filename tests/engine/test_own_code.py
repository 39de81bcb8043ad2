"""Parts of the user's own: named in the configuration, or given as arguments, which win."""

import sys
from typing import Any

import pytest

from megdet_hvd.config.load import load_config
from megdet_hvd.engine.own_code import (
    NOTHING_GIVEN,
    GivenCode,
    find_evaluation_code,
    find_own_code,
)
from megdet_hvd.errors import UserError
from tests.extending.parts import Lines, build, noises, pictures, tiny

PARTS = "tests.extending.parts"
NAMED = load_config(
    None,
    [
        f"model.detector={PARTS}:tiny",
        "data.kind=own",
        f"data.dataset={PARTS}:noises",
        f"learning.optimizer={PARTS}:build",
        f"log.loggers=[{PARTS}:Lines]",
        f"evaluation.measures=[{PARTS}:pictures]",
    ],
)


def test_what_is_given_is_noted_as_what_is_named() -> None:
    given = GivenCode(tiny, noises, build, [Lines], [pictures])
    assert given.noted_in(load_config(None)) == NAMED
    assert NOTHING_GIVEN.noted_in(NAMED) is NAMED
    by_name = GivenCode(detector=f"{PARTS}:tiny", loggers=[f"{PARTS}:Lines"])
    config = by_name.noted_in(load_config(None))
    assert config.model == NAMED.model and config.log == NAMED.log
    assert find_own_code(config, by_name).loggers == ((f"{PARTS}:Lines", Lines),)


def test_what_is_named_is_found() -> None:
    found = find_own_code(NAMED, NOTHING_GIVEN)
    assert (found.detector, found.dataset, found.optimizer) == (tiny, noises, build)
    assert found.measures == ((f"{PARTS}:pictures", pictures),)


def test_what_is_given_needs_no_name_and_wins() -> None:
    def local(*_: Any) -> Any: ...

    given = GivenCode(optimizer=local, measures=[])
    config = given.noted_in(NAMED)
    assert str(config.learning.optimizer).startswith("__argument__:test_what_is_given")
    found = find_own_code(config, given)
    assert found.optimizer is local and found.measures == () and found.detector is tiny
    with pytest.raises(UserError, match="give it as an argument again"):
        find_own_code(config, NOTHING_GIVEN)


def test_an_evaluation_imports_nothing_of_training() -> None:
    words = ["learning.optimizer=no_such:build", "log.loggers=[no_such:Lines]"]
    config = load_config(None, [*words, f"model.detector={PARTS}:tiny"])
    found = find_evaluation_code(config)
    assert found.detector is tiny and found.optimizer is None and "no_such" not in sys.modules
    with pytest.raises(UserError, match="there is no module no_such"):
        find_own_code(config, NOTHING_GIVEN)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (GivenCode(optimizer=3), r"train\(optimizer=…\) was given a int"),  # type: ignore[arg-type]
        (GivenCode(loggers=Lines), r"train\(loggers=…\) takes a list of them"),  # type: ignore[arg-type]
        (GivenCode(measures=[3]), r"train\(measures=…\) was given a int"),  # type: ignore[list-item]
        (GivenCode(detector="mine"), "model.detector=mine: code of your own is named"),
    ],
)
def test_what_can_not_be_called_is_refused(given: GivenCode, told: str) -> None:
    with pytest.raises(UserError, match=told):
        given.noted_in(NAMED)
