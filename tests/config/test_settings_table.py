"""docs/settings.md says what the schema says."""

import re
from pathlib import Path
from typing import Any

import yaml

from megdet_hvd.config.keys import valid_keys
from megdet_hvd.config.load import config_to_dict, load_config
from megdet_hvd.config.settings_table import settings_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_table(), (
        "write it anew: python -m megdet_hvd.config.settings_table > docs/settings.md"
    )


def test_each_setting_stands_once_with_the_value_that_a_run_gets(tmp_path: Path) -> None:
    """Read back as a user reads it: the first cell can be typed, the value in brackets too."""
    cells = re.findall(r"^\| `([\w.]+)=([^`]*)`(?: \(`([^`]*)`\))? \|", settings_table(), re.M)
    assert [path for path, _, _ in cells] == list(valid_keys())
    (tmp_path / "seed.yaml").write_text("seed: 0\n")
    schema = config_to_dict(load_config(tmp_path / "seed.yaml"))
    embedded = config_to_dict(load_config(None))
    for path, default, inner in cells:
        for values, text in ((schema, default), (embedded, inner or default)):
            value: Any = values
            for name in path.split("."):
                value = value[name]
            assert yaml.safe_load(text) == value or float(text) == value, path
