import os

import pytest

from megdet_hvd.comm.settings import (
    HorovodSettings,
    horovod_variables,
    settings_for,
    variables_set,
)
from megdet_hvd.config.load import load_config


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
        (["device=cpu"], None),
        (["device=cpu", "horovod.cycle_time_ms=0.5"], 0.5),
        (["device=cuda", "horovod.cycle_time_ms=5"], 5),
    ],
)
def test_the_cycle_is_short_on_a_gpu_that_waits_for_bn(
    overrides: list[str], cycle_time_ms: float | None
) -> None:
    assert settings_for(load_config(None, overrides)) == HorovodSettings(None, cycle_time_ms)


def test_settings_of_a_run() -> None:
    overrides = ["device=cpu", "deterministic=true", "horovod.fusion_threshold_mib=0"]
    assert settings_for(load_config(None, overrides)) == HorovodSettings(0, None, True)


def test_variables_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOROVOD_CYCLE_TIME", raising=False)
    with pytest.raises(KeyError), variables_set({"HOROVOD_CYCLE_TIME": "3"}):
        assert os.environ["HOROVOD_CYCLE_TIME"] == "3"
        raise KeyError
    assert "HOROVOD_CYCLE_TIME" not in os.environ
