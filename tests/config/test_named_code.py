"""Code of the user's own, named as module:name."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from megdet_hvd.config.load import load_config
from megdet_hvd.config.named_code import find_code, name_of_code, refuse_unasked
from megdet_hvd.errors import UserError

SETTING = "learning.optimizer"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module in it that no other test has."""
    path = [entry for entry in sys.path if entry not in ("", str(Path.cwd()))]
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.chdir(tmp_path)
    text = "def build(): ...\ndef built(): ...\nRATE = 1\n"
    kind = "class Kind:\n    make = staticmethod(build)\n"
    (tmp_path / "own_parts.py").write_text(text + kind)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_a_module_is_found_in_the_current_folder(folder: Path) -> None:
    found = find_code(SETTING, "own_parts:build")
    assert found.__module__ == "own_parts" and name_of_code(found) == "own_parts:build"
    assert find_code(SETTING, "own_parts:Kind.make") is found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("own_part:build", "there is no module own_part, neither in the current folder"),
        ("own_parts.inner:build", "there is no module own_parts.inner"),
        ("own_parts:bild", "own_parts has no name bild; it has build, built"),
        ("own_parts:RATE", "must be a function or a class that can be called, not a int"),
        ("__argument__:build", "was given to train() as an argument"),
    ],
)
def test_what_leads_nowhere_is_told_with_the_fix(folder: Path, name: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        find_code(SETTING, name)
    assert str(caught.value).startswith(f"{SETTING}={name}: ") and told in str(caught.value)


def test_an_error_in_the_users_module_is_his(folder: Path) -> None:
    (folder / "own_broken.py").write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        find_code(SETTING, "own_broken:build")


@pytest.mark.parametrize("then", ["def build(): ...", "raise KeyError"])
def test_the_current_folder_stays(folder: Path, then: str) -> None:
    """Otherwise a run would be written in another folder than the one that is locked."""
    (folder / "inner").mkdir()
    (folder / "own_going.py").write_text(f"import os\nos.chdir('inner')\n{then}\n")
    with suppress(KeyError):
        find_code(SETTING, "own_going:build")
    assert Path.cwd() == folder


@pytest.mark.parametrize("code", ["", "0", "'no'"])
def test_a_program_that_ends_the_process_is_no_module(folder: Path, code: str) -> None:
    """A command would end as if all were done, with exit code 0."""
    (folder / "own_program.py").write_text(f"import sys\nsys.exit({code})\ndef build(): ...\n")
    with pytest.raises(UserError, match=r"own_program ends the process .*sys.exit\((None|0|'no')"):
        find_code(SETTING, "own_program:build")


@pytest.mark.parametrize(
    ("value", "example"),
    [
        ("mine.build", "such as mine:build"),
        ("mine/parts.py", "such as mine:parts"),
        ("mine:", "such as mine.parts:build"),
        ("a b:c", "such as mine.parts:build"),
    ],
)
def test_another_form_is_refused_when_the_configuration_is_read(value: str, example: str) -> None:
    for word in (f"learning.optimizer={value}", f'log.loggers=["{value}"]'):
        with pytest.raises(UserError) as caught:
            load_config(None, [word])
        assert f"{word.partition('=')[0]}={value}: code of your own" in str(caught.value)
        assert str(caught.value).endswith(example)


def test_reading_a_configuration_imports_nothing(folder: Path) -> None:
    """On a login node, or of a stranger's file, a name is a name."""
    (folder / "own_loud.py").write_text("print('imported')\n")
    program = (
        "from megdet_hvd.config.load import load_config\n"
        "print(load_config(None, ['learning.optimizer=own_loud:build']).learning.optimizer)"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout == "own_loud:build\n"


def test_names_of_what_is_given_as_an_argument() -> None:
    assert name_of_code(load_config) == "megdet_hvd.config.load:load_config"
    assert name_of_code(lambda: None).startswith("__argument__:")


class Kind:
    """With functions that its name leads to, and one that needs an object."""

    @classmethod
    def made(cls) -> None: ...

    def bound(self) -> None: ...


def test_a_method_of_an_object_has_no_name_of_its_own() -> None:
    assert name_of_code(Kind().bound) == "__argument__:Kind_bound"
    assert name_of_code(Kind.made) == f"{__name__}:Kind.made"


def test_a_file_may_name_what_the_user_names_too() -> None:
    named = [("model.detector", "mine:build"), ("evaluation.measures", "mine:one")]
    refuse_unasked(named, named, "some.pt", str)
    with pytest.raises(
        UserError, match=r"some\.pt names code .* evaluation\.measures=mine:one\. A"
    ):
        refuse_unasked(named, named[:1], "some.pt", str)
