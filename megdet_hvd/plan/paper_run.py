"""What is predicted of the paper's own run, at any number of GPUs."""

from collections.abc import Sequence

from megdet_hvd.plan.prediction import Prediction, predict_all
from megdet_hvd.plan.profiles import built_in, network
from megdet_hvd.plan.question import Question, pictures, question_config


def paper_rows(gpu: str, gpus: Sequence[int], *overrides: str) -> list[Prediction]:
    """The paper's configuration, 2 images a GPU, on the profile's own network."""
    config = question_config(None, overrides)
    profile = built_in(gpu)
    train, val = pictures(config)
    assert train is not None and val is not None
    question = Question(config, profile, network(profile.network), 8, 8, 2, train, val)
    return [row for row in predict_all(question, gpus) if isinstance(row, Prediction)]
