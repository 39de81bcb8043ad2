"""An array of jobs, one for each value of a setting: ``--array 'seed=0,1,2%2'``. Pure.

Several settings give the product of their values. Slurm starts as many jobs of one array; each
finds its own values by its number in it.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from megdet_hvd.errors import UserError

OPTION = "--array"
EXAMPLE = "python -m megdet_hvd.submit --array 'seed=0,1,2' TEMPLATE"
_LIMIT = re.compile(r"%(?P<limit>\d+)$", re.ASCII)
_MOST = 100_000
"""Members that are written out at all; Slurm's own limit (MaxArraySize) is 1001 by default."""
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*", re.ASCII)


@dataclass(frozen=True)
class JobArray:
    """Which values the members have."""

    axes: tuple[tuple[str, tuple[str, ...]], ...]
    """Settings, and the values of each."""
    limit: int | None = None
    """Members that run at a time; None: all."""

    @property
    def members(self) -> list[tuple[str, ...]]:
        """The settings of each member, as ``key=value`` words; the last axis varies fastest."""
        words = [[f"{key}={value}" for value in values] for key, values in self.axes]
        return list(itertools.product(*words))

    @property
    def indices(self) -> str:
        """The value of sbatch's own ``--array``."""
        last = math.prod(len(values) for _, values in self.axes) - 1
        return f"0-{last}" + (f"%{self.limit}" if self.limit is not None else "")


def read_job_array(texts: Sequence[str]) -> JobArray:
    """The array that ``key=value,value`` texts ask for; a last ``%N`` limits the members at a time.

    Raises:
        UserError: what is wrong with them, all of it, one a line.
    """
    axes: dict[str, tuple[str, ...]] = {}
    limits: set[int] = set()
    problems = []
    for text in texts:
        key, sign, listed = text.partition("=")
        if not sign or not _KEY.fullmatch(key):
            problems.append(
                f"{OPTION}={text}: the jobs would all be one and the same run; say what differs: "
                f"{EXAMPLE}"
            )
            continue
        if (match := _LIMIT.search(listed)) is not None:
            limit = int(match["limit"])
            if 0 < limit <= _MOST:
                limits.add(limit)
            else:
                problems.append(
                    f"{OPTION} {text}: %{limit} is no limit; give a number from 1 of members that "
                    "run at a time, or leave it out: all"
                )
            listed = listed[: match.start()]
        try:
            values = split_values(listed)
        except ValueError as error:
            problems.append(f"{OPTION} {text}: {error}")
            continue
        if "" in values:
            problems.append(f"{OPTION} {text}: a value is empty")
        if twice := sorted(value for value, count in Counter(values).items() if count > 1):
            problems.append(f"{OPTION} {text}: {twice[0]} stands there twice")
        if key in axes:
            problems.append(f"{OPTION} {text}: {key} has values already; one {OPTION} for each")
        axes[key] = tuple(values)
    if len(limits) > 1:
        shown = " and ".join(f"%{limit}" for limit in sorted(limits))
        problems.append(f"{OPTION}: {shown} contradict each other; one limit holds for the array")
    if (count := math.prod(map(len, axes.values()))) > _MOST:
        problems.append(f"{OPTION}: it would have {count} members; {_MOST} is the most")
    if problems:
        raise UserError("\n".join(problems))
    return JobArray(tuple(axes.items()), min(limits, default=None))


def split_values(text: str) -> list[str]:
    """At the commas outside of brackets and quotes: ``[1,2],[3]`` are two values.

    A quote opens where a value begins, or within brackets, as in YAML; elsewhere it is a letter.

    Raises:
        ValueError: a quote or a bracket is not closed.
    """
    values, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"" and (depth > 0 or not values[-1].strip()):
            quote = sign
        elif sign in "[{(":
            depth += 1
        elif sign in "]})":
            depth -= 1
        elif sign == "," and depth <= 0:
            values.append("")
            continue
        values[-1] += sign
    if quote or depth > 0:
        open_sign = quote or "bracket"
        raise ValueError(f"the {open_sign} in {values[-1].strip()} is not closed")
    return [value.strip() for value in values]


def take_arrays(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The texts behind each ``--array``, and all other words.

    Raises:
        UserError: nothing stands behind one.
    """
    texts: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, sign, value = word.partition("=")
        if name != OPTION:
            rest.append(word)
            continue
        if not sign and not left:
            raise UserError(f"{OPTION}: settings and their values follow it: {EXAMPLE}")
        texts.append(value if sign else left.pop(0))
    return texts, rest


def member_words(words: Sequence[str], member: int | None) -> list[str]:
    """The words of one member of an array, or those of a job that is no array.

    Args:
        words: with ``--array`` and its settings for an array.
        member: the job's number in its array, from 0; None: it is in none.

    Raises:
        UserError: an array without settings, settings without an array, or more members than
            values.
    """
    texts, rest = take_arrays(words)
    if member is None and not texts:
        return rest
    if member is None:
        raise UserError(
            f"{OPTION} {texts[0]}: this job is no member of an array of Slurm; {EXAMPLE} makes one"
        )
    if not texts:
        raise UserError(
            "a job array without settings: its members would all be one and the same run; say what "
            f"differs: {EXAMPLE}"
        )
    array = _array_beside(texts, rest)
    members = array.members
    if not 0 <= member < len(members):
        raise UserError(
            f"member {member} of the array has no values: {OPTION} gives {len(members)}; "
            f"sbatch --array={array.indices}"
        )
    return [*rest, *members[member]]


def words_of_members(words: Sequence[str]) -> list[list[str]]:
    """The words of each member, in order, as :func:`member_words` gives them one by one.

    Raises:
        UserError: as there.
    """
    texts, rest = take_arrays(words)
    return [[*rest, *settings] for settings in _array_beside(texts, rest).members]


def _array_beside(texts: Sequence[str], rest: Sequence[str]) -> JobArray:
    """The array, whose settings no other word may give. Raises UserError."""
    array = read_job_array(texts)
    taken = [key for key, _ in array.axes if any(word.startswith(f"{key}=") for word in rest)]
    if taken:
        raise UserError(
            f"{taken[0]} has a value, and {OPTION} gives it others; leave one of them out"
        )
    return array
