"""sbatch's options, before a template and in it: long and short forms as one mapping. Pure.

What is not looked at here is passed on as it stands: which options there are, sbatch knows.
"""

from collections.abc import Mapping, Sequence

from megdet_hvd.errors import UserError

_TEMPLATE = ".sbatch"
_SHORT = {
    "A": "account", "a": "array", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task",
    "C": "constraint", "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile",
    "G": "gpus", "h": "help", "H": "hold", "i": "input", "I": "immediate", "J": "job-name",
    "k": "no-kill", "L": "licenses", "M": "clusters", "m": "distribution", "n": "ntasks",
    "N": "nodes", "o": "output", "O": "overcommit", "p": "partition", "q": "qos", "Q": "quiet",
    "s": "oversubscribe", "S": "core-spec", "t": "time", "v": "verbose", "V": "version",
    "w": "nodelist", "W": "wait", "x": "exclude",
}  # fmt: skip
_FLAG_NAMES = """
check contiguous help hold ignore-pbs no-requeue overcommit oversubscribe parsable quiet reboot
requeue spread-job test-only usage use-min-nodes verbose version wait
"""
_FLAGS = frozenset(_FLAG_NAMES.split())
"""They take no value; ``check`` is ours."""
_OPTIONAL_NAMES = """
exclusive get-user-env immediate nice no-kill propagate tres-bind x11
"""
_OPTIONAL = frozenset(_OPTIONAL_NAMES.split())
"""They take one only behind an equals sign, or behind the letter of the short form."""
_READ = (
    *("array", "chdir", "dependency", "error", "export", "job-name", "nodes", "ntasks"),
    *("ntasks-per-node", "output", "partition", "account", "qos", "signal", "time"),
)
"""What is looked at here; sbatch takes beginnings of its options' names, too."""


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

    An option that is not known here takes the next word, unless that is an option or a template.

    Raises:
        UserError: a letter that is no option, or an option without its value.
    """
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            name, given = _full_name(name), bool(sign)
        else:
            name, value = _letter(word[1], word, where), word[2:].removeprefix("=")
            given = len(word) > 2
            if name in _FLAGS and given:
                rest.insert(0, f"-{value}")  # -Hv is -H -v
                value, given = "", False
        if name in _FLAGS and given:
            raise UserError(f"{where}: --{name} takes no value, and has {value!r}")
        if not given and name not in _FLAGS and name not in _OPTIONAL:
            if rest and not rest[0].startswith("-") and not rest[0].endswith(_TEMPLATE):
                value = rest.pop(0)
            elif name in _READ:
                raise UserError(f"{where}: --{name} has no value")
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


def _full_name(name: str) -> str:
    """The whole name of an option that is looked at here; any other as it stands."""
    if name in _READ or name in _FLAGS or name in _OPTIONAL:
        return name
    begun = [known for known in _READ if name and known.startswith(name)]
    return begun[0] if len(begun) == 1 else name
