"""Questions to the plan, for its tests."""

from megdet_hvd.plan.profiles import built_in, network
from megdet_hvd.plan.question import Question, question_config


def question(
    *overrides: str,
    gpu: str = "v100",
    adapters: str = "4xedr",
    images_per_gpu: int | None = 2,
    cores_per_gpu: int = 8,
    gpus_per_machine: int = 8,
) -> Question:
    """The paper's configuration on COCO."""
    return Question(
        config=question_config(None, overrides),
        profile=built_in(gpu),
        network=network(adapters),
        gpus_per_machine=gpus_per_machine,
        cores_per_gpu=cores_per_gpu,
        images_per_gpu=images_per_gpu,
        train_images=118_287,
        val_images=5_000,
    )
