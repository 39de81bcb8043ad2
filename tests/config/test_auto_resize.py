"""A run's pictures keep the values that they began with."""

from pathlib import Path

import pytest

from megdet_hvd.checkpoint.file import load_checkpoint, save_checkpoint
from megdet_hvd.config.auto_resize import with_resizer_of
from megdet_hvd.config.load import config_to_dict, load_config, override
from megdet_hvd.config.resume_rules import changes
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.engine import resumption
from megdet_hvd.engine.fingerprints import measure
from megdet_hvd.evaluate import make_evaluation_plan
from megdet_hvd.evaluation.predictor import load_detector
from tests.data.made import image, read_coco, write_set
from tests.evaluation.checkpoints import write_checkpoint

CONFIG = load_config(None, ["global_batch=8"])


def former() -> dict[str, object]:
    """The configuration in a checkpoint from before there was the setting."""
    tree = config_to_dict(CONFIG)
    del tree["data"]["resize"]
    return tree


@pytest.mark.parametrize(
    ("before", "asked", "expected", "changed"),
    [
        (None, "auto", "pillow", False),
        (None, "pillow", "pillow", False),
        (None, "torch", "torch", True),
        ("auto", "auto", "auto", False),
        ("auto", "torch", "torch", False),
        ("auto", "pillow", "pillow", True),
        ("torch", "auto", "torch", False),
        ("pillow", "auto", "pillow", False),
        ("pillow", "torch", "torch", True),
    ],
)
def test_auto_is_what_the_checkpoint_has(
    before: str | None,
    asked: str,
    expected: str,
    changed: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    tree = former()
    if before is not None:
        tree = config_to_dict(override(CONFIG, [f"data.resize={before}"]))
    config = override(CONFIG, [f"data.resize={asked}"])
    found = with_resizer_of(tree, config)
    assert found.data.resize == expected
    assert [change.key for change in changes(tree, found)] == ["data.resize"] * changed
    saved = SavedLayout(8, 1, 1, "cgbn", (8,), tree)
    monkeypatch.setattr(resumption, "read_saved_layout", lambda _: saved)
    resumed = resumption.resumption_of(tmp_path, config, config, ())
    assert resumed.config == resumed.elastic_resume(((0,),)).config == found


def test_mmaps_of_former_versions_compare_with_those_of_the_same_resizer(tmp_path: Path) -> None:
    index = read_coco([write_set(tmp_path, [image(1)], [])], keep_empty=True, invalid_boxes="stop")
    auto, torch, pillow = (
        measure(override(CONFIG, [f"data.resize={one}"]), index)
        for one in ("auto", "torch", "pillow")
    )
    assert auto == torch != pillow


def test_a_checkpoint_is_evaluated_with_its_own_resizer(tmp_path: Path) -> None:
    checkpoint, file = tmp_path / "iteration_00000100.pt", tmp_path / "own.yaml"
    write_checkpoint(checkpoint)
    content = load_checkpoint(checkpoint)
    del content["config"]["data"]["resize"]  # as a former version wrote it
    save_checkpoint(checkpoint, content)
    file.write_text("global_batch: 2\n")

    def resizers(*words: str) -> list[str]:
        plans = (make_evaluation_plan(checkpoint, one, words, None) for one in (None, file))
        return [plan.config.data.resize for plan in plans]

    assert load_detector(checkpoint)._transform.resizer == "pillow"
    assert resizers() == ["pillow", "pillow"]
    assert resizers("data.resize=torch") == ["torch", "torch"]
