import os

import pytest

from megdet_hvd.config.load import load_config
from megdet_hvd.errors import UserError
from megdet_hvd.job.horovod_settings import (
    HOROVODS_OWN,
    HorovodSettings,
    horovod_variables,
    initialise,
    settings_for,
    settings_on,
)


def test_horovods_own_values_are_left_alone() -> None:
    assert horovod_variables(HorovodSettings(), {"HOROVOD_CYCLE_TIME": "5"}) == ({}, ())


def test_settings_become_variables_in_horovods_units() -> None:
    settings = HorovodSettings(fusion_threshold_mib=64, cycle_time_ms=2.5)
    assert horovod_variables(settings, {}) == (
        {"HOROVOD_FUSION_THRESHOLD": "67108864", "HOROVOD_CYCLE_TIME": "2.5"},
        (
            "HOROVOD_FUSION_THRESHOLD=67108864 (horovod.fusion_threshold_mib)",
            "HOROVOD_CYCLE_TIME=2.5 (horovod.cycle_time_ms)",
        ),
    )


def test_what_the_user_set_stands_and_is_said_where_it_differs() -> None:
    settings = HorovodSettings(fusion_threshold_mib=64, cycle_time_ms=1.0)
    environ = {"HOROVOD_FUSION_THRESHOLD": "1024", "HOROVOD_CYCLE_TIME": "1.0"}
    assert horovod_variables(settings, environ) == (
        {},
        (
            "HOROVOD_FUSION_THRESHOLD=1024, as the environment says "
            "(horovod.fusion_threshold_mib would set 67108864)",
        ),
    )


def test_deterministic_turns_fusion_off_unless_the_environment_says_otherwise() -> None:
    settings = HorovodSettings(fusion_threshold_mib=64, deterministic=True)
    assert horovod_variables(settings, {})[0] == {"HOROVOD_FUSION_THRESHOLD": "0"}
    added, notes = horovod_variables(settings, {"HOROVOD_FUSION_THRESHOLD": "1024"})
    assert added == {} and "deterministic would set 0" in notes[0]


@pytest.mark.parametrize(
    ("overrides", "cycle_time_ms"),
    [
        (["device=cuda"], 0.1),
        (["device=cuda", "bn.scope=world"], 0.1),
        (["device=cuda", "bn.scope=process"], None),
        (["device=cuda", "model.norm=frozen"], None),
        (["device=cuda", "bn.carrier=peer"], None),
        (["device=cpu"], None),
        (["device=cpu", "horovod.cycle_time_ms=0.5"], 0.5),
        (["device=cuda", "horovod.cycle_time_ms=5"], 5),
    ],
)
def test_the_cycle_is_short_on_a_gpu_that_waits_for_bn(
    overrides: list[str], cycle_time_ms: float | None
) -> None:
    on_gpu = "device=cuda" in overrides
    expected = HorovodSettings(None, cycle_time_ms, async_completion=on_gpu)
    assert settings_for(load_config(None, overrides)) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_sums_are_measured_as_a_run_makes_them(device: str) -> None:
    run = settings_for(load_config(None, [f"device={device}"]))
    assert settings_on(gpu=device == "cuda") == run


def test_sums_on_a_gpu_do_not_keep_the_host_waiting() -> None:
    settings = HorovodSettings(async_completion=True)
    name = "HOROVOD_ENABLE_ASYNC_COMPLETION"
    assert horovod_variables(settings, {}) == ({name: "1"}, (f"{name}=1 (sums on a GPU)",))
    added, notes = horovod_variables(settings, {name: "0"})
    assert added == {} and "as the environment says" in notes[0]
    notes = horovod_variables(settings, {"HOROVOD_TIMELINE": "t.json"})[1]
    assert "HOROVOD_TIMELINE is set" in notes[-1]
    assert horovod_variables(HorovodSettings(), {"HOROVOD_TIMELINE": "t.json"}) == ({}, ())


def test_settings_of_a_run() -> None:
    overrides = ["device=cpu", "deterministic=true", "horovod.fusion_threshold_mib=0"]
    assert settings_for(load_config(None, overrides)) == HorovodSettings(0, None, True)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which Horovod has read neither variable."""
    monkeypatch.setattr("megdet_hvd.job.horovod_settings._given", set())
    for name in HOROVODS_OWN:
        monkeypatch.delenv(name, raising=False)


def seen() -> tuple[str | None, str | None]:
    return os.environ.get("HOROVOD_FUSION_THRESHOLD"), os.environ.get("HOROVOD_CYCLE_TIME")


@pytest.mark.usefixtures("fresh")
def test_variables_do_not_stay() -> None:
    def fails() -> None:
        assert seen() == (None, "3")
        raise KeyError

    with pytest.raises(KeyError):
        initialise(fails, {"HOROVOD_CYCLE_TIME": "3"})
    assert seen() == (None, None)


@pytest.mark.usefixtures("fresh")
def test_a_value_given_once_is_given_again_since_horovod_would_keep_it() -> None:
    sessions = []
    for variables in ({"HOROVOD_FUSION_THRESHOLD": "0"}, {}, {"HOROVOD_FUSION_THRESHOLD": "7"}):
        initialise(lambda: sessions.append(seen()), variables)
    assert sessions == [("0", None), (str(128 * 2**20), None), ("7", None)]


@pytest.mark.usefixtures("fresh")
def test_a_start_that_would_crash_horovod_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_FUSION_THRESHOLD", "1024")
    sessions = []
    initialise(lambda: sessions.append(seen()), {"HOROVOD_CYCLE_TIME": "0.1"})
    assert sessions == [("1024", "0.1")]
    assert seen() == ("1024", None)
    with pytest.raises(UserError, match="can't be started twice"):
        initialise(lambda: sessions.append(seen()), {})
    assert len(sessions) == 1
