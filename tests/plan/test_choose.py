"""--fit, and what is handed to a template."""

from pathlib import Path

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.plan.choose import Limit, candidates, choose, read_limit
from megdet_hvd.plan.launch import submit_words
from megdet_hvd.plan.prediction import predict
from tests.plan.asked import question


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("deadline=6h", Limit("deadline", 6.0)),
        ("deadline=90m", Limit("deadline", 1.5)),
        ("deadline=1.5d", Limit("deadline", 36.0)),
        ("deadline=2", Limit("deadline", 2.0)),
        ("gpus=32", Limit("gpus", 32.0)),
        ("node_hours=200", Limit("node_hours", 200.0)),
    ],
)
def test_limits(text: str, limit: Limit) -> None:
    assert read_limit(text) == limit


@pytest.mark.parametrize("text", ["6h", "deadline=", "deadline=0h", "price=3", "gpus=-1"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="give deadline=6h"):
        read_limit(text)


def test_gpus_have_no_unit() -> None:
    with pytest.raises(UserError, match="gpus takes a number without a unit: gpus=3"):
        read_limit("gpus=3h")


def test_candidates_keep_the_papers_limits() -> None:
    rows = candidates(question("memory.checkpoint=auto", images_per_gpu=None))
    assert len(rows) > 20
    assert all(row.batch <= 256 and row.fits and row.gpus % 8 == 0 for row in rows)
    assert all(min(row.derived.bn_images) >= 16 for row in rows)
    assert {row.images for row in rows} >= {2, 4}


def test_frozen_bn_is_kept_below_the_batch_that_fails_in_the_paper() -> None:
    rows = candidates(question("model.norm=frozen", images_per_gpu=None))
    assert rows and max(row.batch for row in rows) < 128
    with pytest.raises(UserError, match="batch 127 at most"):
        choose(question("model.norm=frozen", images_per_gpu=16), Limit("gpus", 32))


def test_a_bn_size_that_is_named_is_kept() -> None:
    rows = candidates(question("bn.size=4", images_per_gpu=2))
    assert rows and all(set(row.derived.bn_images) == {4} for row in rows)
    assert not candidates(question("bn.scope=process", images_per_gpu=2))
    assert candidates(question("model.norm=bn", images_per_gpu=2))


@pytest.mark.parametrize("text", ["deadline=2h", "gpus=32", "node_hours=6"])
def test_the_choice_keeps_the_limit_and_nothing_better_does(text: str) -> None:
    asked, limit = question(images_per_gpu=None), read_limit(text)
    best = choose(asked, limit)
    kept = [row for row in candidates(asked) if limit.keeps(row)]
    assert limit.keeps(best)
    if limit.wish == "deadline":
        assert best.node_hours == min(row.node_hours for row in kept)
    else:
        assert best.hours == min(row.hours for row in kept)


def test_the_batch_can_be_kept_to_the_papers_images() -> None:
    best = choose(question(images_per_gpu=2), Limit("deadline", 1.0))
    assert best.images == 2 and best.hours <= 1.0
    assert predict(question(images_per_gpu=2), best.gpus - 8).hours > 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deadline=1m", r"nothing keeps it; 0\.\d+ h on 128 GPUs is the soonest"),
        ("gpus=4", r"8 GPUs are the fewest, a whole machine"),
        ("node_hours=0.1", r"node-hours on \d+ GPUs are the fewest"),
    ],
)
def test_what_cannot_be_kept_names_the_nearest(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose(question(images_per_gpu=2), read_limit(text))


def test_nothing_fits_the_memory() -> None:
    with pytest.raises(UserError, match="no number of machines of 8 GPUs holds this"):
        choose(question(images_per_gpu=32), Limit("gpus", 32))


def words_of(gpus: int, *, per: int = 8, config: Path | None = None) -> list[str]:
    row = predict(question(gpus_per_machine=per), gpus)
    return submit_words(row, Path("/job"), config, ("learning.policy=long", "global_batch=3"))


def test_a_size_of_the_papers_takes_its_template() -> None:
    assert words_of(64) == [
        "/job/slurm/megdet_64gpu.sbatch",
        "learning.policy=long",
        "global_batch=128",
    ]


def test_another_size_takes_the_next_one_with_its_nodes() -> None:
    assert words_of(24, config=Path("my.yaml")) == [
        "--nodes=3",
        "/job/slurm/megdet_32gpu.sbatch",
        "--config",
        "my.yaml",
        "learning.policy=long",
        "global_batch=48",
    ]
    assert words_of(16, per=4)[:3] == ["--nodes=4", "--ntasks-per-node=4", "--gpus-per-node=4"]


def test_cores_that_the_templates_do_not_have_are_asked_for() -> None:
    row = predict(question(), 16)
    words = submit_words(row, Path("/job"), None, (), cores_per_gpu=4)
    assert words[:2] == ["--cpus-per-task=4", "/job/slurm/megdet_16gpu.sbatch"]


def test_accumulated_passes_count_into_the_papers_largest_batch() -> None:
    rows = candidates(question("learning.accumulation=2", images_per_gpu=4))
    assert rows and max(row.batch for row in rows) == 256
    assert {row.images for row in rows} == {4} and {row.batch // row.gpus for row in rows} == {8}


def test_what_no_template_can_do() -> None:
    with pytest.raises(UserError, match="12 GPUs are machines of 4 and 8"):
        words_of(12)
    with pytest.raises(UserError, match="the largest template is for 128"):
        words_of(256)
