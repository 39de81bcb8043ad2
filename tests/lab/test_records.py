import json
from pathlib import Path

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.lab.record_shape import fault_of
from megdet_hvd.lab.records import SeedRecords, settings_digest, thinned


def test_what_is_written_is_found_again(tmp_path: Path) -> None:
    records = SeedRecords(tmp_path / "full-seed0")
    assert records.read("a") is None
    records.write("a", {"settings": "s", "backbone": "b", "scores": []})
    found = records.finished("a", "s", "b")
    assert found is not None and found["name"] == "a" and found["scores"] == []


@pytest.mark.parametrize(("settings", "backbone"), [("other", "b"), ("s", "other")])
def test_records_of_something_else_are_never_mixed_in(
    tmp_path: Path, settings: str, backbone: str
) -> None:
    records = SeedRecords(tmp_path)
    records.write("a", {"settings": "s", "backbone": "b"})
    with pytest.raises(UserError, match="must not be mixed"):
        records.finished("a", settings, backbone)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 0}', b"{", b"\xff{}", b"[" * 99999])
def test_a_file_that_is_no_record_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    records = SeedRecords(tmp_path)
    records.file("a").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        records.read("a")
    assert records.file("a").read_bytes() == content


def test_the_digest_is_of_what_is_set_in_whatever_order() -> None:
    assert settings_digest(["a=1", "b=2"]) == settings_digest(["b=2", "a=1"])
    assert settings_digest(["a=1", "b=2"]) != settings_digest(["a=1", "b=3"])


def test_a_curve_is_thinned_to_means_and_keeps_its_end() -> None:
    assert thinned([1, 2, 3], [3.0, None, 1.0]) == [[1, 3.0], [2, None], [3, 1.0]]
    long = thinned(range(1, 601), [float(i) for i in range(600)])
    assert len(long) == 60
    assert long[0] == [10, 4.5] and long[-1] == [600, 594.5]
    assert thinned([], []) == []


GOOD = {
    "machine": "2 cores, AMD EPYC, Linux",
    **{"updates": 3, "diverged": {"at": 4, "why": "the loss is not finite"}, "initial_loss": 2.7},
    **{"loss": [[1, 2.7], [3, None]], "scores": [{"epoch": 1.1, "AP": None, "AP50": 0.1}]},
}
ROW = {"images": 1, "variance": 2.0, "foreground": {"box": [0.1, 0.0]}}


def test_the_committed_records_hold_what_a_record_must() -> None:
    files = sorted((Path(__file__).parents[2] / "docs" / "lab").glob("*-seed*/*.json"))
    assert len(files) > 70
    for file in files:
        if file.stem != "backbone":
            assert fault_of(file.stem, json.loads(file.read_text("utf-8"))) is None, file


@pytest.mark.parametrize(
    "wrong",
    [
        *({key: None} for key in ("machine", "updates", "loss", "scores")),
        {"machine": "a\x1b[2J"},
        {"machine": "a\n# page"},
        {"machine": "a|b"},
        {"updates": -1},
        {"updates": "3"},
        {"diverged": {"at": 4}},
        {"diverged": {"at": 4, "why": "<b>"}},
        {"diverged": False},
        {"loss": [[1, 2.7, 3]]},
        {"loss": [[1, float("nan")]]},
        {"scores": [{"epoch": 1.0}]},
        {"scores": [{"epoch": 1.0, "AP": float("inf")}]},
        {"versions": ["torch"]},
        {"recalibrated": {}},
    ],
)
def test_a_record_that_holds_something_else_is_known(wrong: dict[str, object]) -> None:
    assert fault_of("frozen-b8-normal", GOOD) is None
    fault = fault_of("frozen-b8-normal", {**GOOD, **wrong})
    assert fault is not None and min(wrong) in fault and "\x1b" not in fault


def test_measurements_hold_rows() -> None:
    machine = {"machine": "a machine"}
    assert fault_of("variance-cgbn-end", {**machine, "slope": -1.0, "rows": [ROW, ROW]}) is None
    for wrong in ([ROW], [ROW, {**ROW, "variance": 0.0}], [ROW, {**ROW, "images": 0}], 3):
        assert fault_of("variance-cgbn-end", {**machine, "slope": -1.0, "rows": wrong}) is not None
    assert fault_of("overhead", {**machine, "rows": [{"bn_size": 2, "plain BN": 0.1}]}) is None
    assert fault_of("overhead", {**machine, "rows": [{"bn_size": 2, "plain BN": 0}]}) is not None
    assert fault_of("overhead", {**machine, "rows": []}) is not None
