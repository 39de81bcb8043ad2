"""The Python below the environment, made movable, so that ranks load it from their own disk too.

A copy of it finds its library from where it lies. What it may not find is ``libpython``, where
that is a library of its own: the linker wrote down its folder, which is overwritten here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from install.console import say
from install.pack_contents import packed_stdlib

_ASK = (
    "import json, os, sys, sysconfig as s;"
    "print(json.dumps({'prefix': sys.base_prefix, 'program': os.path.realpath(sys.executable),"
    "'stdlib': s.get_path('stdlib'), 'name': 'python%d.%d' % sys.version_info[:2],"
    "'library': os.path.join(s.get_config_var('LIBDIR') or '', "
    "s.get_config_var('INSTSONAME') or '')}))"
)
_TRY = (
    "import bz2, ctypes, hashlib, json, lzma, multiprocessing, ssl, sqlite3, sys, zlib;"
    "print(json.dumps([sys.prefix, sys.base_prefix]))"
)
_TIME_S = 60


@dataclass(frozen=True)
class BasePython:
    """The Python that an environment was made from."""

    prefix: Path
    """Where it lies."""
    program: Path
    """Its executable."""
    stdlib: Path
    """Its own library."""
    name: str
    """``python3.11``."""
    library: Path
    """``libpython3.11.so.1.0``; may not be there, or be no shared library."""

    @property
    def of_system(self) -> bool:
        """Whether every node has it on its own disk."""
        return self.prefix == Path("/usr")


def ask_python(python: Path) -> BasePython:
    """What the environment's Python says of the one below it."""
    done = subprocess.run(
        [python, "-I", "-c", _ASK], capture_output=True, text=True, check=True, timeout=_TIME_S
    )
    found = json.loads(done.stdout)
    name = found.pop("name")
    return BasePython(name=name, **{key: Path(value) for key, value in found.items()})


def copy_python(base: BasePython, folder: Path, environ: Mapping[str, str]) -> bool:
    """Put a movable copy into ``folder``, and try it; False: it can't do without its old place.

    The copy takes no packages from the user's home folder, as an environment takes none.
    """
    stdlib = folder / "lib" / base.name
    names = [
        path.relative_to(base.stdlib).as_posix()
        for path in base.stdlib.rglob("*")
        if path.is_file()
    ]
    for name in packed_stdlib(names):
        (stdlib / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(base.stdlib / name, stdlib / name)
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    shutil.copy2(base.program, programs / base.name)
    for link in ("python", "python3"):
        (programs / link).symlink_to(base.name)
    if base.library.is_file() and ".so" in base.library.name:
        shutil.copy2(base.library, folder / "lib" / base.library.name)
        program = programs / base.name
        program.write_bytes(look_beside(program.read_bytes(), str(base.library.parent)))
    (folder / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    return _works(folder, environ)


def look_beside(program: bytes, library_folder: str) -> bytes:
    """An executable whose runpath, ``library_folder``, becomes ``../lib`` beside it.

    Written over the old text in the table of strings, where it is long enough; else the
    executable as it is.
    """
    old, new = library_folder.encode(), b"$ORIGIN/../lib"
    if len(old) < len(new) or program.count(b"\0" + old + b"\0") != 1:
        return program
    return program.replace(b"\0" + old + b"\0", b"\0" + new.ljust(len(old) + 1, b"\0"))


def _works(folder: Path, environ: Mapping[str, str]) -> bool:
    python = folder / "bin" / "python"
    clean = {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [python, "-c", _TRY], capture_output=True, text=True, timeout=_TIME_S, env=clean
        )
        if done.returncode == 0:
            prefixes = [os.path.realpath(prefix) for prefix in json.loads(done.stdout)]
            return prefixes == [os.path.realpath(folder)] * 2
        reason = done.stderr.strip().splitlines()[-1:]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = [str(error)]
    say(f"a copy of this Python does not run by itself: {' '.join(reason)}")
    return False
