"""Every warning, where it belongs and nowhere else."""

from dataclasses import replace
from typing import Any

import pytest

from megdet_hvd.plan.advice import advice
from megdet_hvd.plan.prediction import predict
from tests.plan.asked import question

QUIET: dict[str, Any] = {"gpu": "v100", "images_per_gpu": 4}


def said(*overrides: str, gpus: int = 8, **more: Any) -> str:
    asked = question(*overrides, **{**QUIET, **more})
    return "\n".join(advice(asked, predict(asked, gpus)))


def test_what_a_profile_has_in_it_is_said_where_it_is_too_much() -> None:
    words = "was timed with CGBN, whose own work stays in the times of model.norm=frozen"
    asked = question("model.norm=frozen", images_per_gpu=2)
    assert words not in "\n".join(advice(asked, predict(asked, 8)))
    timed = replace(asked, profile=replace(asked.profile, norm="cgbn"))
    assert words in "\n".join(advice(timed, predict(timed, 8)))


def test_nothing_is_said_where_nothing_is_wrong() -> None:
    assert said() == ""


@pytest.mark.parametrize(
    ("overrides", "more", "words"),
    [
        (["model.detector=mine:make"], {}, "model.detector=mine:make is your own"),
        (["learning.optimizer=mine:make"], {}, "the memory is SGD's"),
        (["model.backbone=resnet18"], {}, "bench profile --backbone resnet18 --out FILE"),
        ([], {"gpu": "v100-amp"}, "precision=auto is float32 there, and profile v100-amp was"),
        ([], {"gpu": "v100-amp"}, "take precision=float16, or measure"),
        (["bn.scope=process"], {}, "(bn.scope=world with bn.size=32)"),
        (["model.norm=frozen"], {}, "batch 32 with model.norm=frozen may fail"),
        (["model.norm=frozen"], {"gpus": 16}, "does not converge in the paper with warm-up alone"),
        (["model.norm=frozen"], {"gpus": 32}, "batch 128 with model.norm=frozen fails"),
        ([], {"images_per_gpu": 1, "gpus": 16}, "BN statistics over 8 images: the paper finds"),
        ([], {"images_per_gpu": 1, "gpus": 16}, "1 image a GPU: published runs"),
        ([], {"gpus": 12}, "machines of 4 and 8 GPUs take BN statistics over 16 and 32 images"),
        ([], {"gpus": 12}, "12 GPUs leave a machine of 8 partly used: take 8 or 16"),
        (["bn.scope=world"], {"gpus": 16}, "BN statistics span 2 machines"),
        ([], {"images_per_gpu": 8}, "GiB a GPU are predicted with recomputation none, and 16 GiB"),
        (
            ["memory.checkpoint=blocks"],
            {"images_per_gpu": 32},
            "memory.checkpoint=stages needs a little less",
        ),
        (["memory.checkpoint=stages"], {"images_per_gpu": 32}, "nothing is left to recompute"),
        (["horovod.cycle_time_ms=5"], {}, "horovod.cycle_time_ms=0.1 instead of 5"),
        ([], {"gpu": "h100", "images_per_gpu": 2}, "more images a GPU (--images-per-gpu 4) share"),
        (
            ["bn.scope=world"],
            {"gpu": "h100", "gpus": 16},
            "bn.scope=machine keeps messages off the network",
        ),
        ([], {"adapters": "10gbe", "gpus": 16}, "horovod.compression=fp16 halves the bytes"),
        (
            ["horovod.compression=fp16"],
            {"adapters": "10gbe", "gpus": 16},
            "ms: a faster --network, or more images",
        ),
        (
            ["data.workers=1", "model.norm=frozen"],
            {"gpu": "h100-mlperf"},
            "1 loader process a GPU can't keep up",
        ),
        (["precision=bfloat16"], {}, "precision=bfloat16, and profile v100 was timed with float32"),
        (["bn.carrier=mpi"], {}, "training on GPUs refuses it: set bn.carrier=horovod"),
        (["bn.carrier=peer"], {}, "BN messages are those of bn.carrier=horovod"),
        (["device=cpu"], {}, "device=cpu, and profile v100 is a GPU's"),
        (["deterministic=true"], {}, "without fusion (deterministic"),
        ([], {"gpus": 64}, "batch 256 took MLPerf's runs 17 epochs"),
        ([], {"gpus": 128}, "batch 512: no epochs to a target were published"),
        ([], {"gpus": 128}, "global batch 512 is above 256, the largest that the paper shows"),
    ],
)
def test_a_warning_is_given(overrides: list[str], more: dict[str, Any], words: str) -> None:
    assert words in said(*overrides, **more)


@pytest.mark.parametrize(
    ("overrides", "more", "words"),
    [
        (["model.norm=frozen"], {"images_per_gpu": 2}, "Table 2"),
        (["precision=bfloat16"], {"gpu": "v100-amp"}, "was timed with"),
        ([], {"gpu": "a100-mlperf"}, "was timed with"),
        (["model.norm=bn"], {}, "bn.scope=world"),
        ([], {"gpus": 2, "images_per_gpu": 2}, "bn.scope=world"),
        ([], {"gpus": 4}, "partly used"),
        ([], {"gpus": 32}, "MLPerf"),
        ([], {"gpus": 128}, "took MLPerf's runs"),
        (["memory.checkpoint=auto"], {"images_per_gpu": 8}, "GiB"),
    ],
)
def test_a_warning_is_not_given(overrides: list[str], more: dict[str, Any], words: str) -> None:
    assert words not in said(*overrides, **more)
