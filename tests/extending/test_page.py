"""docs/extending.md: its examples are what is trained here."""

import logging
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.config.schema import Config
from megdet_hvd.engine.run_folder.loggers import MetricsLoggers
from tests.extending.check_page import write_tables
from tests.extending.page import examples, write_examples
from tests.pool import on_ranks


def test_a_block_with_a_file_name_is_an_example() -> None:
    text = (
        "```python\n# a.py\nx = 1\n```\n\n```python\nno file\n```\n\n```yaml\n# b.yaml\nc: 2\n```\n"
    )
    assert examples(text) == {"a.py": "x = 1\n", "b.yaml": "c: 2\n"}


def test_the_examples_train_evaluate_and_resume_to_the_bit(tmp_path: Path) -> None:
    assert len(write_examples(tmp_path)) > 5
    write_tables(tmp_path)
    check = "tests.extending.check_page:named_in_a_file"
    on_ranks(check, 2, tmp_path, launcher="gloo", timeout_s=400)


def test_the_logger_of_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By a stand-in of its package, and without the package."""
    names = write_examples(tmp_path)
    made: dict[str, Any] = {}
    exec(compile(names["my_logger.py"], "my_logger.py", "exec"), made)
    metrics = [{"kind": "train", "iteration": 3, "loss": 0.5}]
    run = mock.Mock()
    package = mock.Mock(init=mock.Mock(return_value=run))
    monkeypatch.setitem(sys.modules, "wandb", package)
    opened = MetricsLoggers.opened([("w", made["WandbLogger"])], tmp_path, Config(), 2)
    for line in metrics:
        opened.write(line)
    opened.close()
    assert package.init.call_args.kwargs["id"] == tmp_path.name
    (logged,) = run.log.call_args_list
    assert logged.args[0]["train/loss"] == 0.5 and logged.kwargs == {"step": 3}
    run.finish.assert_called_once_with()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with caplog.at_level(logging.WARNING, "megdet_hvd"):
        MetricsLoggers.opened([("w", made["WandbLogger"])], tmp_path, Config(), 2).write({})
    assert "the logger w can't be used (ModuleNotFoundError" in caplog.text
