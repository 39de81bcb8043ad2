"""Console scripts and ``--version``: the same programs under another name."""

import configparser
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from megdet_hvd import command, scripts
from megdet_hvd.cli import make_parser
from megdet_hvd.config.schema import Config
from megdet_hvd.train import TrainingPlan
from megdet_hvd.version import version_line

ROOT = Path(__file__).resolve().parent.parent


def entry_points() -> dict[str, str]:
    """Of setup.cfg: a script's name, and what it calls."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = parser["options.entry_points"]["console_scripts"].split("\n")
    return dict(line.split(" = ") for line in lines if line)


def test_every_script_is_a_program() -> None:
    points = entry_points()
    assert {*points} == {*command.SCRIPTS}
    for name, target in points.items():
        module, _, function = target.partition(":")
        assert module == "megdet_hvd.scripts" and callable(getattr(scripts, function))
        assert f"megdet-{function}" == name
        program = command.SCRIPTS[name].removesuffix(".__main__")
        assert program == f"megdet_hvd.{function}"


@pytest.mark.parametrize("name", sorted(command.SCRIPTS))
def test_a_script_leaves_with_its_programs_code(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own module's ``main`` runs, without words, and its code is the process's."""
    module = import_module(command.SCRIPTS[name])
    monkeypatch.setattr(module, "main", lambda: 43)
    with pytest.raises(SystemExit) as leaving:
        getattr(scripts, name.removeprefix("megdet-"))()
    assert leaving.value.code == 43

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "main", interrupted)
    with pytest.raises(SystemExit) as leaving:
        getattr(scripts, name.removeprefix("megdet-"))()
    assert leaving.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_what_is_shown_is_what_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path("/runs/a b")
    plan = TrainingPlan(Config(), None, run, words=("seed=1",))
    monkeypatch.setattr(sys, "argv", ["/x/megdet_hvd/train.py"])
    assert plan.carry_on(run) == "python -m megdet_hvd.train --resume '/runs/a b' seed=1"
    assert make_parser("megdet_hvd.bench bn", "").prog == "python -m megdet_hvd.bench bn"
    monkeypatch.setattr(sys, "argv", ["/env/bin/megdet-pipeline"])
    piped = TrainingPlan(Config(), None, run, program="megdet_hvd.pipeline")
    assert piped.carry_on(run) == "megdet-pipeline --resume '/runs/a b'"
    assert command.name_of("megdet_hvd.submit") == "megdet-submit"
    assert make_parser("megdet_hvd.bench bn", "").prog == "megdet-bench bn"
    assert make_parser("megdet_hvd.train", "").prog == "megdet-train"
    # No such script: the module.
    assert command.name_of("megdet_hvd.staging") == "python -m megdet_hvd.staging"


WITH_VERSION = (*sorted({*command.SCRIPTS.values()}), "megdet_hvd.staging.__main__")


@pytest.mark.parametrize("module", WITH_VERSION)
def test_version_of_every_command(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever else its command line lacks."""
    try:
        code = import_module(module).main(["--version"])
    except SystemExit as leaving:
        code = leaving.code
    assert code in (0, None)
    assert capsys.readouterr().out == version_line() + "\n"


def test_version_needs_no_torch() -> None:
    program = (
        "import sys; from megdet_hvd.command import leave; from megdet_hvd.train import main;"
        "import atexit; atexit.register(lambda: print(sorted({'torch', 'horovod', 'numpy'}"
        " & {*sys.modules})));"
        "sys.argv = ['train', '--version']; leave(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    line, heavy = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert line == version_line() and heavy == "[]"


def test_version_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def of(name: str) -> str:
        if name == "horovod":
            raise metadata.PackageNotFoundError(name)
        return "9.8.7+cu130"

    monkeypatch.setattr(metadata, "version", of)
    assert "(no horovod, torch 9.8.7+cu130, Python " in version_line()
    assert len(shlex.split(version_line().partition("(")[0])) == 2
