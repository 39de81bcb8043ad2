"""Literal tables: what a person would do with pencil and paper."""

import pytest

from megdet_hvd.config.derive import derive
from megdet_hvd.config.elastic_resume import elastic_resume
from megdet_hvd.config.load import config_to_dict, load_config, sets
from megdet_hvd.config.saved_layout import SavedLayout, saved_layout_of
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError


def config(batch: int, *more: str) -> Config:
    return load_config(None, [f"global_batch={batch}", *more])


def before(batch: int, processes: int, passes: int, *sizes: int, norm: str = "cgbn") -> SavedLayout:
    return SavedLayout(batch, processes, passes, norm, sizes)


def machines(*sizes: int) -> list[range]:
    first = [sum(sizes[:m]) for m in range(len(sizes))]
    return [range(at, at + size) for at, size in zip(first, sizes, strict=True)]


KEPT = [
    # batch, more settings, before (processes, passes, BN sizes), machines now →
    #   passes, images, bn.size, BN sizes
    # One machine of 4 × 2; half of it: twice the images keep the 8.
    (8, "", (4, 1, 8), (2,), (1, 4, None, (8,))),
    (8, "", (4, 1, 8), (1,), (1, 8, None, (8,))),
    # Two machines of 2 × 2; one of them: twice the passes keep the 4, and the memory.
    (8, "", (4, 1, 4), (2,), (2, 2, None, (4,))),
    (8, "", (4, 1, 4), (1, 1), (1, 4, None, (4,))),
    # And back.
    (8, "", (2, 1, 8), (4,), (1, 2, None, (8,))),
    (8, "", (2, 2, 4), (2, 2), (1, 2, None, (4,))),
    # All four on one machine now: groups of bn.size keep the 4.
    (8, "", (2, 2, 4), (4,), (1, 2, 4, (4,))),
    # The paper's machines, 16 × 8 × 2: fewer of them take more passes.
    (256, "", (128, 1, 16), (8,) * 8, (2, 2, None, (16,))),
    (256, "", (128, 1, 16), (8,) * 16, (1, 2, None, (16,))),
    (256, "", (128, 1, 16), (4,) * 16, (1, 4, None, (16,))),
    (256, "", (128, 1, 16), (16,) * 8, (1, 2, 16, (16,))),
    # 64 = 8 × 8 accumulated on one machine; on four of them the passes go.
    (64, "learning.accumulation=4", (8, 4, 16), (8,) * 4, (1, 2, None, (16,))),
    # The paper's best: 32 over two machines of 8.
    (64, "bn.scope=world bn.size=32", (32, 1, 32), (8, 8), (2, 2, 32, (32,))),
    (64, "bn.scope=world bn.size=32", (32, 1, 32), (8,), (2, 4, 32, (32,))),
    (64, "bn.scope=world", (32, 1, 64), (8, 8), (1, 4, None, (64,))),
    (64, "bn.scope=world", (16, 1, 64), (8,) * 4, (1, 2, None, (64,))),
    # A process's images split into statistics of 2.
    (16, "bn.size=2", (2, 1, 2), (4,), (1, 4, 2, (2,))),
    (16, "bn.size=2", (2, 1, 2), (1,), (2, 8, 2, (2,))),
    (16, "bn.scope=process", (8, 1, 2), (4,), (2, 2, None, (2,))),
    (16, "bn.scope=process", (4, 1, 4), (8,), None),
    # More images than before are taken where nothing else keeps it, as few as will do.
    (12, "", (3, 2, 6), (4,), (1, 3, 6, (6,))),
    (48, "", (6, 4, 12), (4,), (4, 3, None, (12,))),
    # Machines of unequal size.
    (9, "", (3, 1, 3, 6), (1, 2), (1, 3, None, (3, 6))),
    (18, "", (3, 2, 3, 6), (1, 2, 1, 2), (1, 3, None, (3, 6))),
    (24, "", (8, 1, 12), (4, 2), (2, 2, None, (4, 8)), "changes"),
    (24, "", (8, 1, 24), (2, 1), None),
    (24, "", (12, 1, 8), (4, 2), (1, 4, 8, (8,))),
    # An earlier resume set bn.size and passes; the run's own configuration did not.
    (8, "", (4, 1, 4), (4,), (1, 2, 4, (4,))),
    (8, "", (4, 1, 4), (2, 2), (1, 2, None, (4,))),
    (8, "learning.accumulation=2", (4, 1, 8), (4,), (1, 2, None, (8,))),
    # Each process its own statistics; none at all.
    (8, "model.norm=bn", (4, 1, 2), (2,), (2, 2, None, (2,))),
    (8, "model.norm=bn learning.accumulation=2", (2, 2, 2), (4,), (1, 2, None, (2,))),
    (8, "model.norm=frozen", (4, 1), (2,), (2, 2, None, ())),
    (8, "model.norm=none", (2, 1), (8,), (1, 1, None, ())),
]


@pytest.mark.parametrize("row", KEPT, ids=str)
def test_the_bn_size_is_kept_where_it_can_be(row) -> None:  # type: ignore[no-untyped-def]
    batch, more, (processes, passes, *sizes), now, expected, *change = row
    asked = config(batch, *more.split())
    old = before(batch, processes, passes, *sizes, norm=asked.model.norm)
    if expected is None:
        with pytest.raises(UserError, match="BN size changes from"):
            elastic_resume(asked, old, machines(*now))
        return
    going_on = config(batch, "resume.other_bn_size=continue", *more.split())
    found = elastic_resume(going_on if change else asked, old, machines(*now))
    derived = derive(found.config, 1000, sum(now), now)
    assert (
        found.config.learning.accumulation,
        derived.images_per_process_per_pass,
        found.config.bn.size,
        tuple(sorted(set(derived.bn_images))),
    ) == expected
    assert (found.warning is not None) == bool(change)
    assert found.config.global_batch == batch


CHANGED = [
    # As above; the last is what would keep it.
    (8, "", (4, 1, 8), (1, 1), (2, 2, None, (2,)), "bn.scope=world bn.size=8"),
    (8, "model.norm=bn", (2, 1, 4), (4,), (1, 2, None, (2,)), None),
    (16, "bn.scope=process", (4, 1, 4), (8,), (1, 2, None, (2,)), "bn.scope=machine bn.size=4"),
    (16, "", (8, 1, 16), (8, 8), (1, 1, None, (8,)), "bn.scope=world bn.size=16"),
    # bn.size can't be made any more: the nearest that can.
    (64, "bn.size=16", (16, 1, 16), (1,) * 32, (1, 2, 2, (2,)), "bn.scope=world bn.size=16"),
    (9, "", (3, 1, 3, 6), (3, 3, 3), (1, 1, None, (3,)), None),
]


@pytest.mark.parametrize("row", CHANGED, ids=str)
def test_a_bn_size_that_changes_is_refused_or_warned_of(row) -> None:  # type: ignore[no-untyped-def]
    batch, more, (processes, passes, *sizes), now, expected, remedy = row
    asked = config(batch, *more.split())
    old = before(batch, processes, passes, *sizes, norm=asked.model.norm)
    with pytest.raises(UserError, match="other_bn_size=continue goes on") as refused:
        elastic_resume(asked, old, machines(*now))
    going_on = config(batch, "resume.other_bn_size=continue", *more.split())
    found = elastic_resume(going_on, old, machines(*now))
    derived = derive(found.config, 1000, sum(now), now)
    assert (
        found.config.learning.accumulation,
        derived.images_per_process_per_pass,
        found.config.bn.size,
        tuple(sorted(set(derived.bn_images))),
    ) == expected
    assert found.warning is not None and found.warning in str(refused.value)
    assert ("would keep it" in found.warning) == (remedy is not None)
    assert remedy is None or f"{remedy} would keep it" in found.warning


def test_the_lines_carry_the_sums() -> None:
    found = elastic_resume(config(8), before(8, 4, 1, 4), machines(2))
    assert found.lines == (
        "resumed on 2 processes instead of 4: global batch 8 = 2 × 2 images × 2 passes "
        "(was 4 × 2 × 1)",
        "BN size kept: 4 = 2 processes × 2 images",
    )
    found = elastic_resume(config(8), before(8, 4, 1, 8), machines(2))
    assert found.lines == (
        "resumed on 2 processes instead of 4: global batch 8 = 2 × 4 images × 1 pass "
        "(was 4 × 2 × 1)",
        "a process holds 4 images in a pass, 2 before; memory.checkpoint=auto drops and "
        "recomputes what does not fit",
        "BN size kept: 8 = 2 processes × 4 images",
    )
    found = elastic_resume(config(8), before(8, 2, 2, 4), machines(4))
    assert found.lines[-1] == "BN size kept: 4 = 2 processes × 2 images (bn.size=4)"
    found = elastic_resume(
        config(8, "resume.other_bn_size=continue"), before(8, 4, 1, 8), machines(1, 1)
    )
    assert found.warning == (
        "BN size changes from 8 to 2, each process its own 2 images (bn.scope=machine); "
        "bn.scope=world bn.size=8 would keep it"
    )
    moved = elastic_resume(config(8), before(8, 4, 1, 4), machines(1, 3), ["bn.scope"])
    assert moved.lines == (
        "resumed on 4 processes that stand otherwise: global batch 8 = 4 × 2 images × 1 pass "
        "(was 4 × 2 × 1)",
        "BN size changes from 4 to 2 and 6 on machines of 1 and 3 processes (bn.scope=machine), "
        "as given",
    )
    quiet = elastic_resume(
        config(8, "model.norm=frozen"), before(8, 4, 1, norm="frozen"), machines(2)
    )
    assert len(quiet.lines) == 1


@pytest.mark.parametrize("now", [(4,), (2, 2), (1, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("more", ["", "bn.scope=world", "learning.accumulation=2", "bn.size=1"])
def test_the_same_processes_change_nothing(now: tuple[int, ...], more: str) -> None:
    asked = config(16, *more.split())
    derived = derive(asked, 1000, 4, now)
    old = before(16, 4, asked.learning.accumulation, *sorted(set(derived.bn_images)))
    found = elastic_resume(asked, old, machines(*now))
    assert (found.config, found.lines, found.warning) == (asked, (), None)


def test_a_batch_that_does_not_divide_names_the_processes_that_do() -> None:
    with pytest.raises(UserError) as error:
        elastic_resume(config(12), before(12, 4, 1, 12), machines(5))
    assert str(error.value) == (
        "resume: global batch 12 does not divide over 5 processes (12 % 5 = 2), and a resumed run "
        "keeps its batch: start it on 1, 2, 3, 4, 6 or 12 processes"
    )
    with pytest.raises(UserError, match="start it on 1, 2 or 4 processes"):
        elastic_resume(
            config(12, "learning.accumulation=3"),
            before(12, 4, 1, 12),
            machines(3),
            ["learning.accumulation"],
        )


def test_what_the_user_gives_for_this_resume_stands() -> None:
    old = before(8, 4, 1, 8)
    asked = config(8, "learning.accumulation=2", "resume.other_bn_size=continue")
    found = elastic_resume(asked, old, machines(2), ["learning.accumulation"])
    assert found.config.learning.accumulation == 2 and found.warning is not None
    assert "BN size changes from 8 to 4 = 2 processes × 2 images" in found.warning
    found = elastic_resume(config(8, "bn.size=4"), old, machines(2), ["bn.size"])
    assert (found.config.learning.accumulation, found.config.bn.size) == (2, 4)
    assert found.warning is None and found.lines[-1].endswith(
        "2 images (bn.scope=machine), as given"
    )
    found = elastic_resume(config(8, "bn.scope=world"), old, machines(1, 1), ["bn.scope"])
    assert found.config.bn.size is None and found.lines[-1].startswith("BN size kept: 8")
    with pytest.raises(UserError, match=r"bn\.size=3 can't be made"):
        elastic_resume(config(8, "bn.size=3"), old, machines(2), ["bn.size"])


def test_another_batch_is_left_to_the_check_of_the_run() -> None:
    asked = config(16)
    assert elastic_resume(asked, before(8, 4, 1, 8), machines(3)).config is asked


def test_what_a_checkpoint_says_of_its_processes() -> None:
    def content(*more: str, **facts: object) -> dict[str, object]:
        return {"config": config_to_dict(config(16, *more)), "world": 4, **facts}

    pairs = {"bn_groups": [[0, 1], [2, 3]]}
    assert saved_layout_of(content(**pairs)) == SavedLayout(16, 4, 1, "cgbn", (8,))
    assert saved_layout_of(content(**pairs)).images == 4
    assert saved_layout_of(content("learning.accumulation=2", **pairs)).bn_images == (4,)
    assert saved_layout_of(content(bn_groups=[[0], [1, 2, 3]])).bn_images == (4, 12)
    assert saved_layout_of(content("bn.size=2", bn_groups=[[0], [1], [2], [3]])).bn_images == (2,)
    assert saved_layout_of(content("model.norm=bn")).bn_images == (4,)
    assert saved_layout_of(content("model.norm=frozen", **pairs)).bn_images == ()
    assert saved_layout_of(content()).bn_images is None  # written before groups were


def test_an_unknown_bn_size_is_said_to_be_unknown() -> None:
    found = elastic_resume(config(8), SavedLayout(8, 4, 1, "cgbn", None), machines(2))
    assert found.lines[-1] == "BN size 4; the checkpoint does not say what it was"
    assert elastic_resume(config(8), SavedLayout(8, 4, 1, "cgbn", None), machines(4)).lines == ()


@pytest.mark.parametrize(
    ("word", "key", "said"),
    [
        ("learning.accumulation=1", "learning.accumulation", True),
        ("learning={accumulation: 1}", "learning.accumulation", True),
        ("learning={momentum: 0.5}", "learning.accumulation", False),
        ("bn.size=null", "bn.size", True),
        ("bn.scope=machine", "bn.size", False),
    ],
)
def test_a_setting_given_its_own_value_is_given(word: str, key: str, said: bool) -> None:
    assert sets([word], key, config(8)) is said
