"""GPUs and networks: each number says where it is from, and a wrong file says what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.plan.fit import Shared
from megdet_hvd.plan.profiles import built_in, fabric, gpu_profiles, network, read_profile
from megdet_hvd.plan.sourced import ORIGINS
from megdet_hvd.plan.stragglers import LATE_TO_EARLY, straggler_images


def entry(**changes: Any) -> dict[str, Any]:
    one = {"value": 1.0, "measured": "here"}
    whole = {
        "name": "mine",
        "about": "mine",
        "precision": "float32",
        "norm": "cgbn",
        "link": "pci",
        "network": "25gbe",
        "memory_gib": one,
        "memory_gb_s": one,
        "inside_gb_s": one,
        "model_factor": one,
        "inference_s": one,
        "steps": [{"images": 2, "gpus": 1, "seconds": {"value": 0.5, "measured": "here"}}],
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


def written(folder: Path, content: Any) -> Path:
    file = folder / "profile.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_every_built_in_number_has_an_origin_and_a_network() -> None:
    assert {"v100", "a100", "h100"} <= set(gpu_profiles())
    for name, profile in gpu_profiles().items():
        numbers = [profile.memory_gib, profile.memory_gb_s, profile.inside_gb_s]
        numbers += [profile.model_factor, profile.inference_s]
        numbers += [step.seconds for step in profile.steps]
        assert all(number.origin in ORIGINS and len(number.source) > 5 for number in numbers), name
        assert network(profile.network).gb_s > 0
    assert built_in("v100").steps[0].seconds.value == 0.210


@pytest.mark.parametrize("name", ["v100", "a100", "a100-mlperf", "h100-mlperf"])
def test_the_profile_gives_its_own_step_back(name: str) -> None:
    shared = Shared(1.2, 0.25)
    profile = built_in(name)
    compute = profile.compute(shared)
    for step in profile.steps:
        again = compute.seconds(step.images) + compute.stragglers_s(step.images, step.gpus, 0.25)
        assert again == pytest.approx(step.seconds.value * profile.model_factor.value)


def test_an_early_step_is_taken_as_a_later_one(tmp_path: Path) -> None:
    steps = [{"images": 2, "gpus": 1, "early": True, "seconds": {"value": 0.5, "measured": "here"}}]
    profile = read_profile(written(tmp_path, entry(steps=steps)))
    compute = profile.compute(Shared(2.0, 0.0))
    assert compute.seconds(2) == pytest.approx(0.5 * LATE_TO_EARLY) and straggler_images(2, 1) == 0
    assert profile.backbone == "resnet50" and profile.min_sizes == (800,)


def test_a_file_of_before_names_one_size(tmp_path: Path) -> None:
    assert read_profile(written(tmp_path, entry(min_size=64))).min_sizes == (64,)


def test_adapters_add_up() -> None:
    assert network("8xHDR").gb_s == pytest.approx(8 * 25 * 0.85)
    assert network("25gbe").gb_s == pytest.approx(25 / 8 * 0.6) and network("25gbe").hops == 5
    links = fabric(built_in("a100"), network("4xhdr"))
    assert links.inside_gb_s == 231 and links.between_gb_s == pytest.approx(85)


@pytest.mark.parametrize("name", ["9xhdr", "0xhdr", "fdr", "8 x hdr", "", "xhdr"])
def test_other_networks_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"adapters are edr, hdr, ndr, efa"):
        network(name)


def test_other_gpus_are_refused() -> None:
    with pytest.raises(UserError, match=r"no such profile; there are v100, v100-amp, a100"):
        built_in("k80")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "not a profile"),
        (entry(steps=[]), "steps is empty"),
        (entry(norm="bn"), "norm='bn' must be one of frozen, cgbn"),
        (entry(memory_gib=None), "KeyError: 'memory_gib'"),
        (entry(memory_gib={"value": 1}), "one of measured, published, derived, assumed"),
        (entry(memory_gib={"value": 1, "measured": "a", "assumed": "b"}), "must say where"),
        (entry(memory_gb_s={"value": "1", "measured": "a"}), "is not a number"),
        (entry(memory_gb_s={"value": 0, "measured": "a"}), "must be above 0"),
        (entry(memory_gb_s={"value": -1, "measured": "a"}), "not below 0"),
        (entry(steps=[{"images": 0, "gpus": 1}]), "whole numbers above 0"),
        (entry(steps=[{"images": True, "gpus": 1}]), "whole numbers above 0"),
        (entry(memory_gib={"value": 10**400, "measured": "a"}), "must be finite"),
        (entry(memory_gib={"value": float("nan"), "measured": "a"}), "must be finite"),
        (entry(memory_gib="measured"), "'measured' must be a value with where it comes from"),
        (entry(blocking_sum_us=[[0.1, -448.0]]), "must be pairs of numbers above 0"),
        (entry(blocking_sum_us=[[float("nan"), 448.0]]), "must be pairs of numbers above 0"),
        (entry(blocking_sum_us=[[0.1, float("inf")]]), "must be pairs of numbers above 0"),
        (entry(blocking_sum_us=[[10**400, 448.0]]), "OverflowError"),
        (entry(min_sizes=[0]), "min_sizes=0 must be a whole number, 1 to"),
        (entry(min_sizes=800), "min_sizes=800 must be a list"),
        (entry(max_size=10**400), "must be a whole number, 1 to"),
        (entry(frozen_stages=6), "frozen_stages=6 must be a whole number, 0 to 5"),
        (entry(bfloat16="no"), "bfloat16='no' must be true or false"),
        (entry(backbone="vgg"), "backbone='vgg' must be one of resnet18, resnet50, resnet101"),
    ],
)
def test_what_is_no_profile_says_why(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(UserError, match="not a profile as bench profile writes them") as told:
        read_profile(written(tmp_path, content))
    assert said in str(told.value)


def test_text_of_a_file_leaves_the_terminal_alone(tmp_path: Path) -> None:
    signs = "a\x1b[31m\x07\nb"
    profile = read_profile(written(tmp_path, entry(name=signs, about=signs, network=signs)))
    assert (profile.name, profile.about) == ("a\\x1b[31m\\x07\\nb",) * 2
    assert profile.network.isprintable()


def test_the_timed_pictures_are_those_of_the_publication() -> None:
    """configs/Base-RCNN-FPN.yaml of facebookresearch/detectron2; DeepLearningExamples has 800."""
    assert built_in("v100").min_sizes == (640, 672, 704, 736, 768, 800)
    every = gpu_profiles()
    assert {name for name, one in every.items() if one.min_sizes != (800,)} == {"v100"}
    assert {one.frozen_stages for one in every.values()} == {2}
    assert {name for name, one in every.items() if not one.bfloat16} == {"v100", "v100-amp"}


def test_a_profile_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such profile; bench profile --out"):
        read_profile(tmp_path / "none.json")
    with pytest.raises(UserError, match="the profile can't be read"):
        read_profile(tmp_path)


def test_no_number_of_images_takes_less_than_no_time(tmp_path: Path) -> None:
    steps = [
        {"images": n, "gpus": 1, "seconds": {"value": seconds, "measured": "here"}}
        for n, seconds in ((2, 0.1), (4, 0.5))
    ]
    compute = read_profile(written(tmp_path, entry(steps=steps))).compute(Shared(1, 0))
    assert compute.seconds(4) == pytest.approx(0.5)
    assert compute.seconds(1) == pytest.approx(0.125)


def test_more_images_must_take_longer(tmp_path: Path) -> None:
    steps = [
        {"images": n, "gpus": 1, "seconds": {"value": 1 / n, "measured": "here"}} for n in (2, 4)
    ]
    with pytest.raises(UserError, match="more images must take longer"):
        read_profile(written(tmp_path, entry(steps=steps))).compute(Shared(1, 0))
