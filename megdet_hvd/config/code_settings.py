"""The settings that name code of the user's own, and which of them he has asked for himself."""

from collections.abc import Collection, Sequence

from megdet_hvd.config.load import config_to_dict, sets
from megdet_hvd.config.named_code import refuse_unasked
from megdet_hvd.config.resume_rules import at_path
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

IN_EVALUATION = ("model.detector", "data.dataset", "evaluation.measures")
"""Settings whose code an evaluation runs; the others' is training's."""
IN_TRAINING = (*IN_EVALUATION, "learning.optimizer", "log.loggers")
"""All that name code."""
_LISTS = ("evaluation.measures", "log.loggers")


def code_named(config: Config, settings: Collection[str] = IN_EVALUATION) -> list[tuple[str, str]]:
    """(setting, ``module:name``) of all that ``config`` names in these settings."""
    tree = config_to_dict(config)
    found = []
    for setting in settings:
        value = at_path(tree, setting)
        names = value if isinstance(value, list) else [value]
        found += [(setting, name) for name in names if name is not None]
    return found


def refuse_strangers_code(
    config: Config, file: Config | None, overrides: Collection[str], source: str
) -> None:
    """Refuse to evaluate with code that the user has not named himself.

    Args:
        config: what is to be evaluated with, made of a checkpoint's and the user's own settings.
        file: the configuration file that the user gave.
        overrides: the ``key.sub=value`` words that he gave.
        source: the checkpoint.

    Raises:
        UserError: ``config`` names code that neither ``file`` nor ``overrides`` do.
    """
    asked = [] if file is None else code_named(file)
    for setting in IN_EVALUATION:
        try:
            given = sets(overrides, setting, config)
        except UserError:  # one entry of a list: then the others are the checkpoint's
            given = False
        asked += code_named(config, (setting,)) if given else []
    named = code_named(config)
    refuse_unasked(named, asked, source, lambda unasked: _words(named, unasked))


def _words(named: Sequence[tuple[str, str]], unasked: Sequence[tuple[str, str]]) -> str:
    """The settings that name what is unasked, to be put behind a command; lists are whole."""
    words = []
    for setting in dict.fromkeys(setting for setting, _ in unasked):
        names = ",".join(name for other, name in named if other == setting)
        words.append(f"{setting}=[{names}]" if setting in _LISTS else f"{setting}={names}")
    return " ".join(words)
