"""Measures of the user's own: numbers beside COCO's, from the detections of an evaluation."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Protocol

from megdet_hvd.evaluation.evaluate import Evaluation
from megdet_hvd.job.log import LOGGER


class OwnMeasure(Protocol):
    """Computes numbers from what an evaluation found."""

    def __call__(self, found: Evaluation, /) -> Mapping[str, float]:
        """Called on rank 0 after each evaluation, while the other ranks wait.

        Args:
            found: ``detections`` by position in ``numbering.index``, which has the truth too;
                ``found_boxes()`` and ``numbering.ground_truth()`` are both as flat arrays.

        Returns:
            Numbers by name; they stand in the evaluation's line of metrics. Whatever it raises
            costs a warning, and no other number.
        """
        ...


def own_numbers(
    measures: Sequence[tuple[str, OwnMeasure]], found: Evaluation, taken: Sequence[str] = ()
) -> dict[str, float]:
    """The numbers of all measures, each by its name and its function. Rank 0 only.

    What goes wrong in one costs a warning and its numbers; so does a name that is ``taken``.
    """
    gathered: dict[str, float] = {}
    for name, measure in measures:
        try:
            own = _checked(measure(found))
            for key in own:
                if key in taken or key in gathered:
                    raise ValueError(f"the number {key} is there already; give it another name")
            gathered |= own
        except Exception as error:
            LOGGER.warning(
                f"warning: the measure {name} failed ({type(error).__name__}: {error}), and the "
                "evaluation has no numbers of it"
            )
    return gathered


def _checked(given: object) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise TypeError(f"it gives a {type(given).__name__}; return a dict of name to number")
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, numbers.Real):
            raise TypeError(f"it gives {key!r}: {value!r}; return a dict of name to number")
    return {key: float(value) for key, value in given.items()}
