"""What users import keeps its former name for a while, and says so."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("former", "name", "now"),
    [
        ("megdet_hvd.comm.session", "start", "megdet_hvd.job.session"),
        ("megdet_hvd.comm.watchdog", "start_watchdog", "megdet_hvd.job.watch"),
    ],
)
def test_a_former_name_works_and_names_the_new_one(former: str, name: str, now: str) -> None:
    with pytest.warns(FutureWarning, match=rf"{former}\.{name} has moved: import it from {now}"):
        found = getattr(importlib.import_module(former), name)
    assert found is getattr(importlib.import_module(now), name)
    with pytest.raises(AttributeError):
        importlib.import_module(former).no_such_name  # noqa: B018
