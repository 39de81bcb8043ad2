"""The one exception of set-up: something the user can mend."""


class SetupProblem(Exception):
    """The text says what is wrong and what to do; it is printed without a traceback."""
