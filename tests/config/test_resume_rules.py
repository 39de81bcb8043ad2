"""The rules for settings that are changed for a resume: all there, and as the page says."""

from pathlib import Path

import pytest

from megdet_hvd.config.keys import valid_keys
from megdet_hvd.config.load import config_to_dict, load_config, override
from megdet_hvd.config.resume_rules import RULES, changes, refuse_changes
from megdet_hvd.config.resume_table import resume_table
from megdet_hvd.errors import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "resume.md"


def test_each_setting_has_its_rule() -> None:
    assert list(RULES) == list(valid_keys()), (
        "megdet_hvd/config/resume_rules.py says of each setting, in the schema's order, what "
        "becomes of it when it is changed for a resume"
    )
    assert all(rule.words and not rule.words.endswith(".") for rule in RULES.values())


def test_the_page_is_what_the_rules_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == resume_table(), (
        "write it anew: python -m megdet_hvd.config.resume_table > docs/resume.md"
    )


def test_all_that_was_changed_is_found_and_refused_in_one_line() -> None:
    before = config_to_dict(load_config(None))
    now = override(load_config(None), ["model.norm=bn", "learning.weight_decay=0.1", "seed=3"])
    found = changes(before, now)
    assert [change.key for change in found] == ["seed", "model.norm", "learning.weight_decay"]
    assert str(found[-1]) == "learning.weight_decay was 0.0001 in the checkpoint and is 0.1 now"
    with pytest.raises(UserError, match=r"^resume: seed was 0 .*; model.norm was cgbn[^\n]*$"):
        refuse_changes(before, now)
    refuse_changes(before, override(load_config(None), ["learning.weight_decay=0.1"]))


def test_a_checkpoint_from_before_there_was_a_setting_had_its_default() -> None:
    config = load_config(None)
    before = config_to_dict(config)
    del before["learning"]["decay_bn"], before["watchdog"]
    before["of an earlier version"] = 1
    assert changes(before, config) == []
    with pytest.raises(UserError, match=r"learning.decay_bn was true"):
        refuse_changes(before, override(config, ["learning.decay_bn=false"]))


def test_scenes_count_only_where_a_run_trains_on_them() -> None:
    scenes = load_config(None)
    files = override(scenes, ["data.kind=coco", "data.train=[{annotations: a, images: b}]"])
    for config in (scenes, files):
        other = override(config, ["data.scenes.size=128", "data.scenes.val_images=3"])
        found = [change.key for change in changes(config_to_dict(config), other)]
        assert bool(found) == (config is scenes), found
