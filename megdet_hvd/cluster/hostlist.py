"""Slurm's short form of host names, ``rack1-n[01-03,7]``."""

import re


def expand_hosts(text: str) -> list[str]:
    """``n[1-3,7],login`` as ``["n1", "n2", "n3", "n7", "login"]``; zeros in front are kept.

    Raises:
        ValueError: not a host list.
    """
    hosts: list[str] = []
    for part in _split(text):
        hosts += _expand(part)
    return hosts


def _split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text)
    if ",".join(parts) != text or not parts:
        raise ValueError(f"{text!r} is not a list of hosts such as n[1-3,7]")
    return parts


def _expand(part: str) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    inside, _, after = rest.partition("]")
    numbers: list[str] = []
    for piece in inside.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", piece)
        if match is None:
            raise ValueError(f"{part!r}: {piece!r} is neither a number nor a range")
        first, last = match[1], match[2] or match[1]
        numbers += [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    return [f"{before}{number}{end}" for number in numbers for end in _expand(after)]
