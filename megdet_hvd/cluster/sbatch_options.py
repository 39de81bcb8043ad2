"""sbatch's options: long and short forms as one mapping, and slips of the pen found.

Slurm itself would name an unknown option too, but only where there is a Slurm.
"""

import difflib
from collections.abc import Mapping, Sequence

from megdet_hvd.errors import UserError

_SHORT = {
    "A": "account", "a": "array", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task",
    "C": "constraint", "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile",
    "G": "gpus", "h": "help", "H": "hold", "i": "input", "I": "immediate", "J": "job-name",
    "k": "no-kill", "L": "licenses", "M": "clusters", "m": "distribution", "n": "ntasks",
    "N": "nodes", "o": "output", "O": "overcommit", "p": "partition", "q": "qos", "Q": "quiet",
    "s": "oversubscribe", "S": "core-spec", "t": "time", "v": "verbose", "V": "version",
    "w": "nodelist", "W": "wait", "x": "exclude",
}  # fmt: skip
_FLAGS_NAMES = """
contiguous help hold ignore-pbs no-requeue overcommit oversubscribe parsable quiet reboot
requeue spread-job test-only usage use-min-nodes verbose version wait
"""
_FLAGS = frozenset(_FLAGS_NAMES.split())
"""They take no value."""
_OPTIONAL_NAMES = """
exclusive get-user-env immediate nice no-kill propagate tres-bind
"""
_OPTIONAL = frozenset(_OPTIONAL_NAMES.split())
"""They take one only behind an equals sign, or behind the letter of the short form."""
_VALUED_NAMES = """
account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint
container container-id core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline
delay-boot dependency distribution error exclude export export-file extra extra-node-info gid
gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint input
job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu
mem-per-gpu mincpus network nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu
ntasks-per-node ntasks-per-socket open-mode output partition power prefer priority profile qos
reservation segment signal sockets-per-node switches thread-spec threads-per-core time time-min
tmp tres-per-job tres-per-node tres-per-socket tres-per-task uid wait-all-nodes wckey wrap
"""
_VALUED = frozenset(_VALUED_NAMES.split())
KNOWN = _FLAGS | _OPTIONAL | _VALUED
"""Long names of all options, up to Slurm 24.11."""


def read_options(
    words: Sequence[str], where: str, several: Mapping[str, list[str]] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Options as long name to value (empty for a flag), and the words behind the last option.

    Args:
        words: ``--nodes=2 -t 1:00 job.sbatch …``; reading ends at the first word that is neither
            an option nor the value of one.
        where: begins the message of an error.
        several: by long name, lists that take all values of options which may stand several times,
            and are not among the options returned.

    An option that is like none of sbatch's is kept: a site's plugins bring their own.

    Raises:
        UserError: a misspelt option, or one without its value.
    """
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            name, given = _full_name(name, where), bool(sign)
        else:
            name, value = _letter(word[1], word, where), word[2:].removeprefix("=")
            given = len(word) > 2
            if name in _FLAGS and given:
                rest.insert(0, f"-{value}")  # -Hv is -H -v
                value, given = "", False
        if name in _FLAGS and given:
            raise UserError(f"{where}: --{name} takes no value, and has {value!r}")
        if name in _VALUED and not given:
            if not rest:
                raise UserError(f"{where}: --{name} has no value")
            value = rest.pop(0)
        if several is not None and name in several:
            several[name].append(value)
        else:
            options[name] = value
    return options, rest


def to_words(options: Mapping[str, str]) -> list[str]:
    """The inverse of :func:`read_options`."""
    return [f"--{name}={value}" if value else f"--{name}" for name, value in options.items()]


def whole_number(options: Mapping[str, str], name: str, where: str) -> int:
    """The value of an option that must be a whole number ≥ 1.

    Raises:
        UserError: it is missing or something else, such as a range of nodes.
    """
    text = options.get(name, "")
    low, _, high = text.partition("-")
    if low.isdecimal() and (not high or low == high) and int(low) >= 1:
        return int(low)
    said = f"--{name}={text}" if name in options else f"--{name} is missing"
    raise UserError(
        f"{where}: {said}; it must be one whole number, since the number of processes decides "
        f"over the images of each, such as --{name}=2"
    )


def _letter(letter: str, word: str, where: str) -> str:
    if letter not in _SHORT:
        raise UserError(f"{where}: {word} is no option of sbatch")
    return _SHORT[letter]


def _full_name(name: str, where: str) -> str:
    """The whole name; sbatch takes beginnings that only one option has."""
    if name in KNOWN:
        return name
    begun = [known for known in KNOWN if name and known.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    near = begun or difflib.get_close_matches(
        name.replace("_", "-"), sorted(KNOWN), n=3, cutoff=0.65
    )
    if not near:
        return name
    hint = ", ".join(f"--{option}" for option in sorted(near))
    raise UserError(f"{where}: --{name} is no option of sbatch; nearest: {hint}")
