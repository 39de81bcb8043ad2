"""Code of the user's own that a configuration names, ``module:name``, and how it is found.

What is named is imported, and so runs. The run's own configuration and the command line may name
it; of a checkpoint that is merely read, only what the user names himself is taken
(:func:`refuse_unasked`).
"""

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from megdet_hvd.errors import UserError

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_AS_ARGUMENT = "__argument__"
"""Module of what a program gave as an argument, and nobody can find by a name."""


def check_name(setting: str, value: str) -> str:
    """``value``, where it has the form of ``module:name``. Imports nothing.

    Raises:
        ValueError: it has another one.
    """
    if _NAME.fullmatch(value) is None:
        fix = value.removesuffix(".py").replace("/", ".").strip(".")
        module, _, name = fix.rpartition(".")
        near = f"{module}:{name}"
        example = near if _NAME.fullmatch(near) and ":" not in fix else "mine.parts:build"
        raise ValueError(
            f"{setting}={value}: code of your own is named as module:name, with dots as in an "
            f"import, such as {example}"
        )
    return value


def find_code(setting: str, name: str) -> Callable[..., Any]:
    """What ``module:name`` stands for; the module is looked for as ``python -m`` does.

    That is, in the current folder first. The folder stays in ``sys.path``, since the module may
    import its neighbours later on, and stays the current one, whatever the module does.

    Raises:
        UserError: there is no such module or name, or it can't be called.
        Exception: whatever the module itself raises when it is imported.
    """
    module_name, _, path = name.partition(":")
    if module_name == _AS_ARGUMENT:
        raise UserError(
            f"{setting}={name}: it was given to train() as an argument, and has no name to be "
            "found by; give it as an argument again, or define it at the top of a module"
        )
    folder = os.getcwd()
    if not {"", folder} & set(sys.path):
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks another one
        raise UserError(
            f"{setting}={name}: there is no module {error.name}, neither in the current folder "
            f"{folder} nor in Python's path; start in the folder that holds it, or add that one to "
            "PYTHONPATH"
        ) from None
    except SystemExit as leaving:  # else a command would end as if it had done its work
        raise UserError(
            f"{setting}={name}: the module {module_name} ends the process when it is imported "
            f"(sys.exit({leaving.code!r})); put what it does as a program under "
            '`if __name__ == "__main__":`'
        ) from leaving
    finally:
        os.chdir(folder)  # where it has gone to another: the run's own paths start from here
    for part in path.split("."):
        known = [one for one in dir(found) if not one.startswith("__")]
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, known, n=3, cutoff=0.4) or known[:3]
            said = f"; it has {', '.join(near)}" if near else ""
            raise UserError(f"{setting}={name}: {module_name} has no name {part}{said}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(
            f"{setting}={name}: must be a function or a class that can be called, not a "
            f"{type(found).__name__}"
        )
    return found  # type: ignore[no-any-return]


def name_of_code(code: Callable[..., Any]) -> str:
    """``module:name`` under which a configuration records ``code``.

    Of what isn't at the top of a module, a name that says so and finds nothing.
    """
    module, path = getattr(code, "__module__", None), getattr(code, "__qualname__", None)
    if inspect.ismethod(code) and not isinstance(code.__self__, type):
        module = None  # the name leads to the function, which lacks its object
    if isinstance(module, str) and isinstance(path, str):
        name = f"{module}:{path}"
        if _NAME.fullmatch(name) is not None:
            return name
    kind = re.sub(r"\W", "_", str(path or type(code).__name__))
    return f"{_AS_ARGUMENT}:{kind.strip('_') or 'code'}"


def refuse_unasked(
    named: Sequence[tuple[str, str]],
    asked: Collection[tuple[str, str]],
    source: str,
    words: Callable[[Sequence[tuple[str, str]]], str],
) -> None:
    """Refuse to run what a file names that may come from anybody.

    Args:
        named: (setting, ``module:name``) that the file would have run.
        asked: those that the user has named himself.
        source: the file.
        words: what the user writes to name the code that he has not named yet.

    Raises:
        UserError: it names some that the user has not.
    """
    unasked = [one for one in named if one not in asked]
    if unasked:
        told = ", ".join(f"{setting}={name}" for setting, name in unasked)
        raise UserError(
            f"{source} names code that it needs run: {told}. A checkpoint may come from anybody, "
            "so nothing that it names is imported unasked: name the same yourself "
            f"({words(unasked)}), or give --trust-code (trust_code=True) where you trust the file"
        )
