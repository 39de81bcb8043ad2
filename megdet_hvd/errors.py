"""The two exceptions that end a run with one clear message and no traceback.

Entry points print the text once and leave with the exit code beside it; a traceback is for
faults of this package.
"""


class UserError(ValueError):
    """Bad input. The text names the value, the rule it breaks, and the fix. Exit code 2."""


class RunError(RuntimeError):
    """A run that cannot go on. The text names iteration, rank and reason. Exit code 3."""
