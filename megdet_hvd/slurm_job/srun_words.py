"""What srun's messages mean: a silent node, a busy one, or options that it does not take. Pure."""

import re

_SILENT = re.compile(
    r"communication (connection failure|shutdown|send failure|receive)|not responding"
    r"|connection (timed out|refused|reset)|no route to host|network is unreachable"
    r"|host is (down|unreachable)|zero bytes were (transmitted|received)|socket timed out"
    r"|node failure|failed on node|unable to contact|no reply|can't find an address",
    re.IGNORECASE,
)
_ON_NODE = re.compile(r"failed on node (?P<node>[^\s:]+)")
_OWN = re.compile(r"^(srun|slurmstepd(-[\w.-]+)?|slurmd(\[[^\]]*\])?): ")
_NOISE = re.compile(
    r"^(-+|[*=#-]{5,}|_+|\^+|\s*|.*(set MCA parameter .* to see all|sent help message).*"
    r"|\*\*\*.*)$",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"MPI_ERR_\w+: |will now abort|Your MPI job is now|Local abort before|exit code"
)
_HELP = re.compile(r"^-{20,}\n\s*(?P<first>\S[^\n]*)", re.MULTILINE)
"""What Open MPI explains stands between two rules."""


def errors_of(text: str) -> list[str]:
    """What srun calls errors, without its own name in front."""
    lines = [line for line in text.splitlines() if re.match(r"srun: (error|fatal): ", line)]
    return [re.sub(r"^srun: (error|fatal): ", "", line).strip() for line in lines]


def silent(text: str) -> str | None:
    """The error that speaks of a node that can't be reached; None: none does."""
    return next((line for line in errors_of(text) if _SILENT.search(line)), None)


def silent_nodes(text: str) -> list[str]:
    """The nodes that such errors name, each once."""
    found = [m["node"] for line in errors_of(text) if (m := _ON_NODE.search(line))]
    return list(dict.fromkeys(found))


def reason(text: str) -> str | None:
    """Why a program that srun started has failed: its own last line, else srun's first error.

    srun ends with ``srun: error: n8: task 1: Exited with exit code 1``, which says nothing.
    """
    lines = [line.strip() for line in text.splitlines()]
    own = [x for x in lines if x and not _OWN.match(x) and not _NOISE.match(x)]
    if own:
        told = _HELP.search(text)
        return told["first"] if told and _VAGUE.search(own[-1]) else own[-1]
    stepd = [_OWN.sub("", x) for x in lines if x.startswith(("slurmstepd", "slurmd"))]
    ends = [*errors_of(text), *stepd]
    useful = [x for x in ends if not re.search(r"Exited with exit code|Terminat", x)]
    return next(iter(useful or ends or lines), None)
