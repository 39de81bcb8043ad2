"""The two shell scripts, in folders with awkward names."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy(root: Path) -> Path:
    shutil.copytree(
        ROOT / "install", root / "install", ignore=shutil.ignore_patterns("__pycache__")
    )
    return root


def run(
    command: Sequence[str | Path], cwd: Path, **environ: str
) -> "subprocess.CompletedProcess[str]":
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**kept, **environ})


def test_run_puts_the_environment_first_and_keeps_arguments(tmp_path: Path) -> None:
    root = copy(tmp_path / "it's a clone; $HOME")
    program = root / ".venv" / "bin" / "horovodrun"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$VIRTUAL_ENV" "$@"\n')
    program.chmod(0o755)
    words = ["-np", "2", "a b", "x='1 2'", "$HOME"]
    done = run(["sh", str(root / "install" / "run"), "horovodrun", *words], tmp_path)
    assert done.stdout.split("|")[:-1] == [f"{root}/.venv", *words]


def test_run_hears_where_the_environment_is(tmp_path: Path) -> None:
    root = copy(tmp_path / "clone")
    for venv, seen in (
        ("/some where/env", "/some where/env"),
        ("envs/a", f"{root}/envs/a"),
        ("~/envs/a", "/home of/u/envs/a"),
    ):
        command = ["sh", str(root / "install" / "run"), "sh", "-c", 'printf %s "$VIRTUAL_ENV"']
        done = run(command, tmp_path, MEGDET_VENV=venv, HOME="/home of/u")
        assert done.stdout == seen


def test_setup_refuses_an_old_or_missing_python(tmp_path: Path) -> None:
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run(["sh", ROOT / "install" / "setup"], tmp_path, PYTHON=str(old))
    assert done.returncode == 1
    assert f"PYTHON={old} is not a Python 3.11 or newer" in done.stderr


def test_setup_knows_its_words(tmp_path: Path) -> None:
    done = run(["sh", ROOT / "install" / "setup", "nonsense"], tmp_path, PYTHON=sys.executable)
    assert done.returncode == 2
    assert "usage: install/setup" in done.stderr


def test_a_bad_setting_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    root = copy(tmp_path / "clone")
    done = run(
        ["sh", root / "install" / "setup"],
        tmp_path,
        PYTHON=sys.executable,
        MEGDET_TORCH="1.0",
        MEGDET_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("[set-up] MEGDET_TORCH=1.0 is not a pair")
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
