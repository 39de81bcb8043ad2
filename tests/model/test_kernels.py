"""A run that is carried on keeps the kernels it began with."""

from torch import nn

from megdet_hvd.model.kernels import FORMER, KernelChoice, begun_with, go_on_with


def chooser(name: str, setting: str = "auto") -> nn.Module:
    module = nn.Identity()
    module.choice = KernelChoice(name, setting=setting, new="new")  # type: ignore[assignment]
    return module


def detector(**settings: str) -> nn.Module:
    return nn.Sequential(*(chooser(name, setting) for name, setting in settings.items()))


def test_what_a_checkpoint_says_counts_and_what_it_does_not_say_is_the_former() -> None:
    for said in ("new", "another"):
        resumed = detector(roi_align="auto", rpn_gradient="auto")
        assert begun_with(resumed) == {"roi_align": "new", "rpn_gradient": "new"}
        go_on_with(resumed, {"roi_align": said})
        expected = {"roi_align": said, "rpn_gradient": FORMER["rpn_gradient"]}
        assert begun_with(resumed) == expected
        again = detector(roi_align="auto", rpn_gradient="auto")
        go_on_with(again, begun_with(resumed))  # as the next checkpoint has it
        assert begun_with(again) == expected


def test_a_run_of_before_there_was_a_choice_keeps_what_there_was() -> None:
    resumed = detector(**dict.fromkeys(FORMER, "auto"))
    go_on_with(resumed, None)
    assert begun_with(resumed) == FORMER


def test_a_kernel_that_is_set_is_used_whatever_the_run_began_with() -> None:
    resumed = detector(roi_align="torchvision")
    go_on_with(resumed, {"roi_align": "sparse"})
    assert begun_with(resumed) == {"roi_align": "torchvision"}
