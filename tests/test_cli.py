"""Command lines: where words may stand, and a help that needs no torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megdet_hvd.cli import TrainArguments, add_config_option, make_parser, parse
from megdet_hvd.cli import parse_train_arguments as parse_train
from megdet_hvd.config.keys import groups, valid_keys

ROOT = Path(__file__).resolve().parent.parent


def test_nothing_means_the_embedded_default() -> None:
    assert parse_train([]) == TrainArguments(None, (), False, None)


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "a b.yaml", "seed=1", "name=x"],
        ["seed=1", "--config", "a b.yaml", "name=x"],
        ["seed=1", "name=x", "--config=a b.yaml"],
    ],
)
def test_settings_stand_anywhere(words: list[str]) -> None:
    assert parse_train(words) == TrainArguments(Path("a b.yaml"), ("seed=1", "name=x"), False, None)


@pytest.mark.parametrize(
    ("words", "folder", "overrides"),
    [
        (["--resume"], None, ()),
        (["--resume", "runs/x"], Path("runs/x"), ()),
        (["--resume", "runs/x", "seed=1"], Path("runs/x"), ("seed=1",)),
        (["--resume", "seed=1", "name=x"], None, ("seed=1", "name=x")),
        (["seed=1", "--resume"], None, ("seed=1",)),
        (["seed=1", "--resume=runs/x"], Path("runs/x"), ("seed=1",)),
    ],
)
def test_resume(words: list[str], folder: Path | None, overrides: tuple[str, ...]) -> None:
    assert parse_train(words) == TrainArguments(None, overrides, True, folder)


def test_resume_from_a_folder_with_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lr=3").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_train(["--resume", "lr=3"]) == TrainArguments(None, (), True, Path("lr=3"))


def test_unknown_option_leaves_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse_train(["--learning-rate", "3"])
    assert leaving.value.code == 2
    assert "unrecognized arguments: --learning-rate" in capsys.readouterr().err


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(SystemExit):
        parse_train(["--conf", "x"])


def test_a_parser_of_another_entry_point() -> None:
    parser = make_parser("megdet_hvd.predict", "Draw boxes.", settings=False)
    add_config_option(parser)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("images", nargs="+")
    found = parse(parser, ["a.jpg", "--checkpoint", "c.pt", "b.jpg"])
    assert (found.images, found.checkpoint) == (["a.jpg", "b.jpg"], Path("c.pt"))
    assert "learning.base_rate" not in parser.format_help()


@pytest.mark.parametrize(
    ("word", "setting"), [("--epochs", "learning.epochs"), ("--batch-size", "global_batch")]
)
def test_options_of_other_trainers_lead_to_settings(
    word: str, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_train([word, "3"])
    said = capsys.readouterr().err
    assert f"unrecognized arguments: {word}; a setting has no dashes, key.sub=value" in said
    assert f"nearest: {setting}" in said


def _help(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of ``--help``."""
    with pytest.raises(SystemExit) as leaving:
        parse_train(["--help"])
    assert leaving.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_help_is_no_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = _help(capsys)
        wrapped = [line for line in lines if not line.startswith("  ") or line[2:3] == " "]
        assert [line for line in wrapped if len(line) >= columns] == []  # defaults stay one word


def test_what_the_help_shows_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _help(capsys)
    assert "  model.anchor_sizes=[32,64,128,256,512]  ([12,24,48,96,192])" in lines
    assert not re.search(r"\bNone\b", "\n".join(lines))  # YAML's is null


def test_help_lists_every_setting_with_type_default_and_docstring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = _help(capsys)
    for key in valid_keys():
        assert sum(line.startswith(f"  {key}=") for line in lines) == 1
    at = lines.index("  global_batch=16  (8)")
    assert lines[at + 1 : at + 3] == [
        "      whole number > 0. The dial: pictures per optimizer step, over all processes and",
        "      accumulated passes.",
    ]
    assert "  learning.momentum=0.9" in lines
    assert "  data.min_sizes=[800]  ([128])" in lines


def test_every_setting_has_a_docstring() -> None:
    assert [key.path for group in groups() for key in group.keys if not key.doc] == []
    assert [group.path for group in groups() if not group.doc] == []


def test_help_without_torch_and_horovod(tmp_path: Path) -> None:
    """Stand-ins that fail when imported come first on the path."""
    for name in ("torch", "torchvision", "horovod", "mpi4py", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} was imported')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    program = "from megdet_hvd.cli import parse_train_arguments as p; p(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "learning.base_rate=0.02" in done.stdout


def test_help_on_a_terminal_that_knows_only_ascii() -> None:
    program = "from megdet_hvd.cli import parse_train_arguments as p; p(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "whole number \\u2265 0. Seed of weights" in done.stdout
