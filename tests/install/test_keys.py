"""The name of a cached wheel changes with everything that it depends on."""

import dataclasses
import sys
from pathlib import Path

import pytest

from install import build_horovod
from install.build_horovod import Plan
from install.horovod_edits import EDITS, Edit
from install.keys import ready, wheel_key
from install.pins import VERSIONS_FILE, read_versions

PLAN = Plan(
    pair=read_versions(VERSIONS_FILE.read_text(encoding="utf-8")).pair("2.14.1"),
    torch="2.14.1",
    cuda="13.0",
    architectures="80,90",
    mpi="openmpi-4.1.8",
    mpicc=None,
    toolkit=None,
    toolkit_release="",
    nccl=None,
)


@pytest.mark.parametrize(
    "change",
    [
        {"torch": "2.11.0"},
        {"cuda": "12.8"},
        {"architectures": "80"},
        {"mpi": "openmpi-4.1.6"},
        {"mpicc": Path("/opt/mpi/bin/mpicc")},
        {"toolkit_release": "12.4"},
        {"nccl": Path("/opt/nccl")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_part_of_the_plan_counts(change: dict[str, object]) -> None:
    changed = dataclasses.replace(PLAN, **change)  # type: ignore[arg-type]
    assert changed.key("0.28.1") != PLAN.key("0.28.1")


def test_the_path_of_a_toolkit_does_not_count() -> None:
    moved = dataclasses.replace(PLAN, toolkit=Path("/opt/cuda"))
    assert moved.key("0.28.1") == PLAN.key("0.28.1")


def test_horovod_python_and_edits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    key = PLAN.key("0.28.1")
    assert PLAN.key("0.28.2") != key
    with monkeypatch.context() as patch:
        patch.setattr(build_horovod, "EDITS", (*EDITS, Edit("a", "b", "c", "d")))
        assert PLAN.key("0.28.1") != key

    class Other:
        major, minor = 3, 12

    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", Other)
        assert PLAN.key("0.28.1") != key


def test_the_name_can_be_read_and_is_a_file_name() -> None:
    parts = {"horovod": "0.28.1", "torch": "2.1+cu130 (a)/b", "python": "3.11", "mpi": "x;y"}
    key = wheel_key(parts)
    assert key.startswith("horovod-0.28.1_torch-2.1-cu130-a-b_python-3.11_mpi-x-y_")
    assert not set(key) & set("/ ;'\"+()[]")


def test_only_a_finished_environment_with_all_that_is_wanted_is_ready() -> None:
    wanted = {"settings": {"torch": "2.14.1"}, "versions": "abc"}
    assert ready({**wanted, "state": "ready", "holds": "…"}, wanted)
    assert not ready({**wanted, "state": "begun"}, wanted)
    assert not ready({**wanted, "state": "ready", "versions": "abd"}, wanted)
    assert not ready(None, wanted)
