"""How commands leave when nobody reads them, and at Ctrl-C; and text that is UTF-8 everywhere."""

import ast
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from megdet_hvd.command import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "megdet_hvd"

PRINTS = """
import sys, time
from megdet_hvd.command import leave

def main():
    {body}

leave(main)
"""


def left(body: str, act: Callable[["subprocess.Popen[str]"], None]) -> tuple[int, str]:
    """Exit code and errors of a command whose main is ``body``; ``act`` does something to it."""
    command = [sys.executable, "-c", PRINTS.format(body=body)]
    buffered = {name: word for name, word in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, cwd=ROOT, env=buffered, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline() == "first\n"
        act(running)
        errors = running.stderr.read()
        return running.wait(20), errors


def closes(running: "subprocess.Popen[str]") -> None:
    assert running.stdout is not None
    running.stdout.close()


def test_a_reader_that_leaves_early() -> None:
    first = "print('first', flush=True); time.sleep(0.3); "
    assert left(first + "[print('x' * 999) for _ in range(999)]; return 0", closes) == (141, "")
    assert left(first + "print('one more'); return 1", closes) == (1, ""), "its own code"
    assert left(first + "print('help'); sys.exit(2)", closes) == (2, "")
    code, errors = left(first + "raise BrokenPipeError('of a socket')", lambda running: None)
    assert code == 1 and "of a socket" in errors, "another pipe's is a fault"


@pytest.mark.parametrize(
    ("words", "body", "code"),
    [
        ([], "print('x'); return 0", 6),
        ([], "print('x' * 99999); return 0", 6),
        ([], "print('x'); return 3", 3),
        ([], "return 0", 0),
        (["-u"], "print('x'); return 3", 6),  # without a buffer it is the print that fails
        (["-u"], "return 0", 0),
        ([], "open('/no/such/file')", 1),
    ],
)
def test_output_onto_a_full_disk(words: list[str], body: str, code: int) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, *words, "-c", PRINTS.format(body=body)],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**environ, "PYTHONPATH": str(ROOT)},
            text=True,
            timeout=20,
        )
    assert ended.returncode == code
    told = "error: standard output can't be written (No space left on device): make room"
    assert (told in ended.stderr) == (code in (3, 6))
    assert ("Traceback" in ended.stderr) == (code == 1) and "ignored" not in ended.stderr


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_streams_that_are_closed_are_nobodys(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """Else the first file that is opened is the standard output of all libraries."""
    file = tmp_path / "checkpoint"
    body = (
        f"kept = open({str(file)!r}, 'w'); print('first', flush=True); "
        "os.system('echo of a child'); os.write(1, b'of a library'); kept.close(); return 3"
    )
    command = [sys.executable, "-c", PRINTS.format(body=f"import os; {body}")]
    redirected = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *command],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    assert file.read_text() == ""


def test_ctrl_c_is_no_traceback() -> None:
    body = "print('first', flush=True); time.sleep(20)"
    found = left(body, lambda running: running.send_signal(signal.SIGINT))
    assert found == (130, "interrupted\n")


def test_another_python_is_no_traceback() -> None:
    body = "print('first', flush=True); raise ModuleNotFoundError('none', name='{}')"
    code, errors = left(body.format("torch.cuda"), lambda running: None)
    assert code == 2 and errors.count("\n") == 1
    assert f"{sys.executable} lacks torch:" in errors and "make setup" in errors
    code, errors = left(body.format("megdet_hvd.nothing"), lambda running: None)
    assert code == 1 and "Traceback" in errors, "ours is a fault"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


@pytest.mark.parametrize("module", sorted(SCRIPTS.values()))
def test_a_python_without_packages_is_no_traceback(bare_python: Path, module: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [bare_python, "-m", module.removesuffix(".__main__"), "--version"],
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode == 0:
        assert "no torch" in done.stdout and done.stderr == ""
    else:
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"error: {bare_python} lacks "), done.stderr


def test_every_command_leaves_that_way() -> None:
    ends = re.compile(r'^if __name__ == "__main__":\n    (.*)\n\Z', re.MULTILINE)
    found = {
        str(file.relative_to(PACKAGE)): match[1]
        for file in PACKAGE.rglob("*.py")
        if (match := ends.search(file.read_text(encoding="utf-8")))
    }
    own = {
        "slurm_job/__main__.py",
        "bench/bn_ranks.py",
        "bench/index_side.py",
        "bench/profile_ranks.py",
    }  # started by programs, not by people
    assert {name for name, line in found.items() if line != "leave(main)"} == own
    assert len(found) > 10


TEXT_CALLS = {"open", "read_text", "write_text", "fdopen", "NamedTemporaryFile", "FileHandler"}


def without_encoding(source: str) -> list[int]:
    """Lines on which text is read or written in whatever the locale says."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        of = getattr(getattr(node.func, "value", None), "id", "")
        given = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
        words = [
            part.value
            for arg in given
            for part in ast.walk(arg)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        binary = any(re.fullmatch(r"[rwxab+]*b[rwxab+]*", word) for word in words)
        other = of in ("os", "Image", "tarfile", "zipfile", "urllib", "request", "opened")
        said = any(keyword.arg == "encoding" for keyword in node.keywords)
        if name in TEXT_CALLS and not binary and not said and (not other or name == "fdopen"):
            lines.append(node.lineno)
        # subprocess' short forms: the locale's encoding, and an error where a byte is not of it
        if any(k.arg in ("text", "universal_newlines") for k in node.keywords) and not said:
            lines.append(node.lineno)
    return lines


def test_the_rule_on_encodings_finds_what_it_should() -> None:
    assert without_encoding("open('x')\np.read_text()\np.open('w')\n") == [1, 2, 3]
    assert without_encoding("run('x', text=True)\nPopen('x', universal_newlines=True)") == [1, 2]
    fine = "open('x', 'rb')\np.read_text(encoding='utf-8')\nos.open('x', 1)\np.open(mode='ab')\n"
    assert without_encoding(fine) == []


def test_text_is_utf_8_whatever_the_locale() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for line in without_encoding(file.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("module", ["predict", "data"])
def test_help_into_head(module: str) -> None:
    line = f"{sys.executable} -m megdet_hvd.{module} --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.splitlines()[-1] in ("0", "141")
