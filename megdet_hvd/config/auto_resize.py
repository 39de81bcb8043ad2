"""Who resizes the pictures of a run that is carried on, or of a trained detector: who did before.

``data.resize=auto`` is torch in a new run. Two resizers differ in the last bit of a few values, so
a checkpoint's pictures stay what they were, those of a former version too, which knew Pillow alone.
"""

from collections.abc import Mapping
from typing import Any

from megdet_hvd.config.resume_rules import at_path
from megdet_hvd.config.schema import Config


def with_resizer_of(before: Mapping[str, Any], config: Config) -> Config:
    """``config`` with the resizer of the configuration in a checkpoint where it asks for none.

    ``before``: that configuration, as plain data.
    """
    had = at_path(before, "data.resize")
    if config.data.resize != "auto" or had == "auto":
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"resize": had})})
