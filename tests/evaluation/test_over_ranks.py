"""However many ranks share the pictures, the numbers are those of one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from megdet_hvd.config.load import load_config
from megdet_hvd.evaluation.evaluate import evaluate_detector
from megdet_hvd.evaluation.inference import evaluating, share_out
from megdet_hvd.job.world import World
from tests.evaluation.over_ranks import SMALL, Known, all_outcomes, source_of
from tests.evaluation.sets import imperfect, open_set, perfect, write_set
from tests.evaluation.test_coco_ap import evaluate
from tests.pool import on_ranks
from tests.ranks import Launcher


@pytest.mark.parametrize("per_batch", [1, 2, 5])
def test_every_picture_is_taken_once(per_batch: int) -> None:
    for size in (1, 2, 3, 4, 7):
        for count in (0, 1, 5, 8, 23):
            aspects = [(7 * i % 5) / 3 + 0.5 for i in range(count)]
            shares = [share_out(aspects, per_batch, rank, size) for rank in range(size)]
            taken = [position for share in shares for batch in share for position in batch]
            assert sorted(taken) == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            # A rank's batches in a row must come out alike when they are cut up again.
            assert all(len(batch) == per_batch for share in shares for batch in share[:-1])
            alone = share_out(aspects, per_batch, 0, 1)
            assert sorted(batch for share in shares for batch in share) == sorted(alone)


def test_every_layer_gets_its_mode_back() -> None:
    layers = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(), torch.nn.Linear(2, 2))
    layers.train()
    layers[0].eval()  # a frozen stage
    with pytest.raises(KeyError), evaluating(layers):
        assert not any(part.training for part in layers.modules())
        assert not layers(torch.ones(3, 2)).requires_grad
        raise KeyError
    assert [part.training for part in layers] == [False, True, True]
    assert layers.training
    assert layers(torch.ones(3, 2)).requires_grad


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets with spaces")
    write_set(folder / "one", [1, 2, 3], seed=2, sizes=((120, 90), (90, 140)))
    write_set(folder / "two", [2, 3], seed=3)
    write_set(folder / "mixed", range(10, 15), sizes=((120, 90), (90, 140), (80, 80)))
    write_set(folder / "damaged", range(5), seed=1)
    picture = folder / "damaged" / "images" / "picture 3.png"
    picture.write_bytes(picture.read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    outcomes = all_outcomes(folder, World(0, 1, ((0,),)))
    assert sum(map(len, outcomes["real"]["boxes"].values())) > 50
    return outcomes


@pytest.mark.parametrize(
    ("np", "launcher"),
    [(2, "gloo"), pytest.param(3, "mpirun", marks=pytest.mark.tail), (4, "mpirun")],
)
def test_any_number_of_ranks_gives_what_one_gives(
    folder: Path, alone: dict[str, Any], np: int, launcher: Launcher
) -> None:
    """Five pictures: uneven over two and three ranks, and one of four has none at all."""
    ranks = on_ranks("tests.evaluation.over_ranks:evaluated", np, folder, launcher=launcher).values
    # Made-up detections, two files with equal image ids: against pycocotools on all of them.
    both = open_set(source_of(folder / "one"), source_of(folder / "two"))
    found = imperfect(both, 7)
    expected = evaluate(both, found)
    shares = [rank["known"].pop("seen") for rank in ranks]
    assert sorted(map(len, shares)) == {2: [2, 3], 3: [1, 2, 2], 4: [0, 1, 2, 2]}[np]
    assert sorted(position for share in shares for position in share) == [0, 1, 2, 3, 4]
    assert ranks[0]["known"]["stats"] == expected.stats
    assert ranks[0]["known"]["per_class"] == expected.per_class
    assert ranks[0]["known"]["boxes"] == {str(k): v.boxes.tolist() for k, v in found.items()}
    numbers = ("stats", "per_class", "unreadable")
    assert all(rank["known"][one] == ranks[0]["known"][one] for rank in ranks for one in numbers)
    assert all(rank["known"]["boxes"] == {} for rank in ranks[1:])
    # A detector whose pictures share a canvas: against the same in this process.
    for position, boxes in alone["real"]["boxes"].items():
        torch.testing.assert_close(ranks[0]["real"]["boxes"][position], boxes, rtol=0, atol=1e-2)
    for position, scores in alone["real"]["scores"].items():
        torch.testing.assert_close(ranks[0]["real"]["scores"][position], scores, rtol=0, atol=1e-5)
    # A picture that can't be decoded ends it on every rank, or is left out and counted.
    for rank in ranks:
        assert "picture 3.png: cannot be decoded" in rank["stop"]["message"]
        assert "data.unreadable_images=skip" in rank["stop"]["message"]
    damaged = open_set(source_of(folder / "damaged"))
    known = {k: v for k, v in imperfect(damaged, 7).items() if k != 3}
    assert ranks[0]["skip"]["unreadable"] == 1
    assert ranks[0]["skip"]["stats"] == evaluate(damaged, known).stats
    assert "3" not in ranks[0]["skip"]["boxes"]


@pytest.mark.parametrize(
    ("brightest", "dark", "told"), [(3000, 2, True), (60000, 2, False), (3000, 1, False)]
)
def test_pictures_that_come_out_black_are_told_of(
    tmp_path: Path, brightest: int, dark: int, told: bool
) -> None:
    """A measure of nothing looks like a bad detector; one such picture in many does not."""
    source = write_set(tmp_path, [1, 2] if dark == 2 else range(1, 12))
    for file in sorted(Path(source.images).iterdir())[:dark]:
        width, height = Image.open(file).size
        grey = np.full((height, width), brightest, np.uint16)
        Image.fromarray(grey).save(file, "PNG")
    index = open_set(source)
    config = load_config(None, SMALL)
    found = evaluate_detector(Known(perfect(index)), index, config, World(0, 1, ((0,),)))
    assert (found.dark is not None) is told
    if found.dark is not None:
        assert "2 of 2 pictures come out all but black" in found.dark
        assert "data.value_range" in found.dark


@pytest.mark.parametrize("launcher", [pytest.param("gloo", marks=pytest.mark.tail), "mpirun"])
def test_detections_come_together_in_messages_of_a_size(launcher: Launcher) -> None:
    """28 bytes a box and 16 a picture: a rank's share of 300 bytes is 100."""
    counts: list[list[int]] = [[1, 0, 9, 0, 0, 0, 0, 0], [], [2, 2]]
    ranks = on_ranks(
        "tests.evaluation.over_ranks:gathered", 3, counts, 300, launcher=launcher
    ).values
    assert [rank["shares"] for rank in ranks] == [
        [[1, 0, 9], [0, 0, 0, 0, 0]],
        [[], []],
        [[2, 2], []],
    ]
    everything = [
        [position, [float(position)] * count, [k / 8 for k in range(count)], [rank + 1] * count]
        for position, (rank, count) in enumerate(
            (rank, count) for rank, own in enumerate(counts) for count in own
        )
    ]
    assert [rank["taken"] for rank in ranks] == [everything, [], []]
