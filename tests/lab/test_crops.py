import itertools

import numpy as np
import pytest
import torch

from megdet_hvd.lab.backbone import rate_at, weights_digest
from megdet_hvd.lab.crops import CROP_CLASSES, OUTSIDE, crop_around, make_crops


def test_crops_are_the_same_each_time_and_other_ones_for_another_seed() -> None:
    crops, again = make_crops("crops", 0, 12, 96), make_crops("crops", 0, 12, 96)
    assert crops.pictures.shape[1:] == (3, 64, 64)
    assert len(crops.labels) == len(crops.pictures) > 30
    assert set(crops.labels) == set(range(len(CROP_CLASSES)))
    assert np.array_equal(crops.pictures, again.pictures)
    assert np.array_equal(crops.labels, again.labels)
    other = make_crops("crops", 1_000_000, 12, 96)
    assert other.pictures.shape != crops.pictures.shape or not np.array_equal(
        other.pictures, crops.pictures
    )


def test_the_middle_of_a_crop_is_the_place_asked_for() -> None:
    pixels = np.zeros((70, 90, 3), np.uint8)
    pixels[:] = np.arange(90, dtype=np.uint8)[None, :, None]
    pixels[..., 1] = np.arange(70, dtype=np.uint8)[:, None]
    crop = crop_around(pixels, 45, 35)
    assert crop[32, 32].tolist() == [45, 35, 45]
    assert crop[0, 0].tolist() == [13, 3, 13]
    corner = crop_around(pixels, 2.0, 69.0)
    assert corner[32, 32].tolist() == [2, 69, 2]
    assert corner[32, 29].tolist() == list(OUTSIDE) and corner[33, 32].tolist() == list(OUTSIDE)


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(update, 100) for update in range(100)]
    assert rates[:3] == pytest.approx([0.01, 0.02, 0.03])
    assert max(rates) == rates[9] == 0.1
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[-1] < 1e-4


def test_the_digest_is_of_every_bit() -> None:
    state = {"a": torch.zeros(3), "b": torch.ones(2)}
    moved = {"a": torch.tensor([0.0, 0.0, 1e-30]), "b": torch.ones(2)}
    assert weights_digest(state) == weights_digest(dict(reversed(state.items())))
    assert weights_digest(state) != weights_digest(moved)
