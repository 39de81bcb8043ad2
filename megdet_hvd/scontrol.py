"""What ``scontrol show`` prints of jobs, nodes and steps, read. Pure.

Its form of several lines, not that of one (``-o``): texts of a user's (a job's name, command,
folder, comment) may hold blanks, and words that look like fields, but each ends its line.
"""

import re

_HEADS = ("JobId=", "NodeName=", "StepId=")
_FIELD = re.compile(r"(?:^|\s)(?P<name>[A-Za-z][\w/:]*)=")
_TEXTS = (
    *("JobName", "Command", "WorkDir", "StdErr", "StdIn", "StdOut"),
    *("Comment", "AdminComment", "SystemComment", "Extra", "OS"),
)
"""Fields whose value is the rest of their line."""
NOTHING = ("", "(null)", "N/A", "None")
"""Slurm's words for no value."""


def read_records(text: str) -> list[dict[str, str]]:
    """Fields by name, of each job, node or step; the first of two with one name counts.

    Lines that belong to none, such as an error message, are passed over.
    """
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        if line.startswith(_HEADS):
            found.append({})
        elif not line[:1].isspace():
            continue  # of a comment with several lines, or no field at all
        if found:
            for name, value in _fields(line):
                found[-1].setdefault(name, value)
    return found


def read_job(text: str, job: int | str) -> dict[str, str]:
    """The record of one job: a number asks for all of its array, too. Empty: it is not there.

    Args:
        text: of ``scontrol show job``.
        job: its own number, or ``ARRAY_MEMBER``.
    """
    array, _, member = str(job).partition("_")
    for one in read_records(text):
        if member:
            if (one.get("ArrayJobId"), one.get("ArrayTaskId")) == (array, member):
                return one
        elif one.get("JobId") == array:
            return one
    return {}


def _fields(line: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    position = 0
    while (match := _FIELD.search(line, position)) is not None:
        name = match["name"]
        following = None
        if name not in _TEXTS and not (name == "Reason" and not found):  # a node's is a text, too
            following = _FIELD.search(line, match.end())
        end = len(line) if following is None else following.start()
        found.append((name, line[match.end() : end].strip()))
        position = end
    return found
