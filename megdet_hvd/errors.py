"""The one exception for bad input.

Everything a user can get wrong (a key, a path, a data set, a number) raises
:class:`UserError`. Entry points print its text once and leave with exit code 2;
a traceback is for faults of this package.
"""


class UserError(ValueError):
    """Bad input. The text names the value, the rule it breaks, and the fix."""
