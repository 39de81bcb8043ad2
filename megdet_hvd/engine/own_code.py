"""The parts of a run that are the user's own: given as arguments, or named in the configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from megdet_hvd.config.load import override
from megdet_hvd.config.named_code import find_code, name_of_code
from megdet_hvd.config.schema import Config
from megdet_hvd.data.own import DataSetFactory
from megdet_hvd.engine.run_folder.loggers import LoggerFactory
from megdet_hvd.engine.step.optimizer import OptimizerFactory
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.measures import OwnMeasure
from megdet_hvd.model.own import DetectorFactory


@dataclass(frozen=True)
class OwnCode:
    """Each part as it is called; None, or none: ours."""

    detector: DetectorFactory | None = None
    dataset: DataSetFactory | None = None
    optimizer: OptimizerFactory | None = None
    loggers: tuple[tuple[str, LoggerFactory], ...] = ()
    """Each by its name."""
    measures: tuple[tuple[str, OwnMeasure], ...] = ()
    """Each by its name."""


@dataclass(frozen=True)
class GivenCode:
    """What a program gives to ``train()`` as arguments; each wins over the setting of that name."""

    detector: DetectorFactory | str | None = None
    dataset: DataSetFactory | str | None = None
    optimizer: OptimizerFactory | str | None = None
    loggers: Sequence[LoggerFactory | str] | None = None
    measures: Sequence[OwnMeasure | str] | None = None

    def noted_in(self, config: Config) -> Config:
        """``config`` with the names of what is given, so that it says what the run is made of.

        Raises:
            UserError: something given is neither a name nor can it be called.
        """
        words = []
        if self.detector is not None:
            words.append(f"model.detector={_name('detector', self.detector)}")
        if self.dataset is not None:
            words += ["data.kind=own", f"data.dataset={_name('dataset', self.dataset)}"]
        if self.optimizer is not None:
            words.append(f"learning.optimizer={_name('optimizer', self.optimizer)}")
        for setting, argument, several in (
            ("log.loggers", "loggers", self.loggers),
            ("evaluation.measures", "measures", self.measures),
        ):
            if several is not None:
                if callable(several) or isinstance(several, str):
                    raise UserError(f"train({argument}=…) takes a list of them; give [{argument}]")
                names = ", ".join(f'"{_name(argument, one)}"' for one in several)
                words.append(f"{setting}=[{names}]")
        return override(config, words) if words else config


ALL_OURS = OwnCode()
NOTHING_GIVEN = GivenCode()


def find_own_code(config: Config, given: GivenCode) -> OwnCode:
    """What the run is to use; all of it is found, or an error says what is not.

    Raises:
        UserError: a name leads to nothing, or to what can't be called.
        Exception: whatever a module of the user's raises when it is imported.
    """
    return OwnCode(
        detector=_one("model.detector", config.model.detector, given.detector),
        dataset=_one("data.dataset", config.data.dataset, given.dataset),
        optimizer=_one("learning.optimizer", config.learning.optimizer, given.optimizer),
        loggers=_several("log.loggers", config.log.loggers, given.loggers),
        measures=_several("evaluation.measures", config.evaluation.measures, given.measures),
    )


def find_evaluation_code(config: Config) -> OwnCode:
    """What an evaluation is to use of it, which is less; errors as there."""
    return OwnCode(
        detector=_one("model.detector", config.model.detector, None),
        dataset=_one("data.dataset", config.data.dataset, None),
        measures=_several("evaluation.measures", config.evaluation.measures, None),
    )


def _name(argument: str, code: Any) -> str:
    if isinstance(code, str):
        return code
    if not callable(code):
        raise UserError(
            f"train({argument}=…) was given a {type(code).__name__}; give a function, or a class "
            "that can be called, or its name as module:name"
        )
    return name_of_code(code)


def _one(setting: str, name: str | None, given: Callable[..., Any] | str | None) -> Any:
    if given is not None and not isinstance(given, str):
        return given
    return None if name is None else find_code(setting, name)


def _several(
    setting: str, names: Sequence[str], given: Sequence[Callable[..., Any] | str] | None
) -> Any:
    codes = names if given is None else given
    return tuple((name, _one(setting, name, code)) for name, code in zip(names, codes, strict=True))
