"""Which files of an environment go into its archive. Names in, names out.

Ranks import and load libraries; they don't compile, lint or test. Headers, static libraries, the
tools and triton (torch.compile's compiler, 0.9 GB; nothing here compiles) stay behind.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

LEFT_OUT = ("triton",)
"""Distributions that training does without, besides the tools."""

_EDITABLE = re.compile(r"__editable__|megdet_hvd-[\d.]+\.dist-info/")
_NOT_NEEDED = re.compile(
    r"include/|share/man/|bin/(activate|deactivate|pydoc)"
    r"|.*/site-packages/(torch|nvidia/[^/]+)/include/|.*\.a$"
    r"|(\.lock|\.gitignore|CACHEDIR\.TAG|pyvenv\.cfg|megdet_hvd\.json)$"
)
_STDLIB_NOT_NEEDED = re.compile(
    r"(site-packages|test|idlelib|ensurepip|tkinter|turtledemo|lib2to3|config-[^/]*)/"
    r"|.*/__pycache__/.*\.opt-\d\.pyc$|EXTERNALLY-MANAGED$"
)


def files_of(record: str, site_packages: PurePosixPath) -> set[str]:
    """Files that a distribution put into the environment, relative to it.

    Args:
        record: the text of its RECORD.
        site_packages: site-packages relative to the environment.
    """
    found = set()
    for line in record.splitlines():
        name = line[1:].partition('"')[0] if line.startswith('"') else line.partition(",")[0]
        parts: list[str] = []
        for part in (site_packages / name).parts:
            if part == ".." and parts:
                parts.pop()
            else:
                parts.append(part)
        found.add("/".join(parts))
    return found


def distribution_of(info: str) -> str:
    """``py_spy-0.4.3.dist-info`` → ``py-spy``."""
    return canonical(info.partition("-")[0])


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packed(names: Iterable[str], dropped: Collection[str]) -> list[str]:
    """The files that ranks need, in order of their names.

    Args:
        names: files and links relative to the environment.
        dropped: files of distributions that stay behind.
    """
    return sorted(
        name
        for name in names
        if name not in dropped
        and not _of_dropped_cache(name, dropped)
        and not _NOT_NEEDED.match(name)
        and not _EDITABLE.search(name)
    )


def _of_dropped_cache(name: str, dropped: Collection[str]) -> bool:
    """Whether it is the byte code of a file that stays behind; RECORD need not list it."""
    match = re.fullmatch(r"(.*?)__pycache__/([^/]+?)\.cpython-[^/]*\.pyc", name)
    return match is not None and f"{match[1]}{match[2]}.py" in dropped


def packed_stdlib(names: Iterable[str]) -> list[str]:
    """The files of Python's own library that ranks need; names relative to ``lib/python3.x``."""
    return sorted(name for name in names if not _STDLIB_NOT_NEEDED.match(name))


def movable_script(text: bytes, folder: str) -> bytes | None:
    """A script that finds Python beside itself, wherever that is; None: it is no such script.

    Args:
        text: the script.
        folder: the folder of programs whose Python it names, as it stands in the script.
    """
    lines = text.split(b"\n", 3)
    rest = text.partition(b"\n")[2]
    if not lines[0].startswith(b"#!" + folder.encode() + b"/python"):
        if lines[0] != b"#!/bin/sh" or len(lines) < 4 or folder.encode() not in lines[1]:
            return None
        rest = lines[3]  # how installers write it for a path that is long or has a space
    return (
        b"#!/bin/sh\n"
        b"""'''exec' "$(dirname -- "$(realpath -- "$0")")"/python "$0" "$@"\n"""
        b"' '''\n" + rest
    )
