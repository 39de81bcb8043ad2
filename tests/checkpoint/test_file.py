import argparse
import os
import pickle
import random
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megdet_hvd.checkpoint.file import load_checkpoint, read_torch_file, save_checkpoint
from megdet_hvd.checkpoint.naming import checkpoint_name
from megdet_hvd.errors import UserError
from megdet_hvd.model.weights_file import read_weights
from tests.pool import on_ranks


def state(iteration: int = 1, values: int = 4000) -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    model(torch.ones(5, 4)).sum().backward()
    optimizer.step()
    return {
        "config": {"global_batch": 16, "model": {"norm": "cgbn", "init_from": None}},
        "categories": ["cat", "dog"],
        "category_ids": [3, 17],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "images_seen": 16 * iteration,
        "iteration": iteration,
        "ap": 0.25,
        "random": {"torch": torch.get_rng_state(), "python": list(random.getstate()[1])},
        "world": {"size": 2, "machines": ((0, 1),)},
        "big": torch.arange(float(values)),
    }


def write(folder: Path, *iterations: int) -> list[Path]:
    paths = [folder / checkpoint_name(iteration) for iteration in iterations]
    for path, iteration in zip(paths, iterations, strict=True):
        save_checkpoint(path, state(iteration))
    return paths


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    # A byte inside a tensor: a place that torch.load takes as it comes.
    place = data.find(np.arange(4000, dtype="<f4").tobytes()) + 4 * 1234 + 2
    data[place] ^= 1
    path.write_bytes(data)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved = state(7)
    path = tmp_path / "new folder" / "iteration_00000007.pt"
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded["iteration"] == 7
    assert loaded["world"] == {"size": 2, "machines": ((0, 1),)}
    assert loaded["config"] == saved["config"]
    for key, value in saved["model"].items():
        assert torch.equal(loaded["model"][key], value)
    momentum = loaded["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, saved["optimizer"]["state"][0]["momentum_buffer"])
    assert os.listdir(path.parent) == [path.name]


def test_a_run_folder_means_its_latest_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", 5, 100000000, 20)
    assert load_checkpoint(tmp_path)["iteration"] == 100000000


def test_a_flipped_bit_is_noticed_and_the_previous_good_one_named(tmp_path: Path) -> None:
    first, second, third = write(tmp_path, 1000, 1200, 1400)
    flip_a_bit(second)
    # The point of reading the checksums ourselves: torch takes the changed number as it is.
    assert not torch.equal(torch.load(second, weights_only=True)["big"], torch.arange(4000.0))
    with pytest.raises(UserError, match=r"00001200\.pt is damaged: the checksum") as error:
        load_checkpoint(second)
    assert f"the previous good one is iteration_00001000.pt: pass {first} instead" in str(
        error.value
    )
    flip_a_bit(first)
    with pytest.raises(UserError, match=r"newest other good one is iteration_00001400\.pt"):
        load_checkpoint(second)
    flip_a_bit(third)
    with pytest.raises(UserError, match="no other good checkpoint beside it"):
        load_checkpoint(second)


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99, -1])
def test_a_file_cut_off_is_damaged(tmp_path: Path, keep: float) -> None:
    good, cut = write(tmp_path, 10, 20)
    data = cut.read_bytes()
    length = int(keep * len(data)) if isinstance(keep, float) else keep
    cut.write_bytes(data[:length])
    with pytest.raises(UserError, match=r"iteration_00000020\.pt") as error:
        load_checkpoint(cut)
    assert "\n" not in str(error.value)
    if keep != 3:  # Three bytes could be the start of any file.
        assert "is damaged" in str(error.value)
        assert good.name in str(error.value)


def test_every_byte_counts(tmp_path: Path) -> None:
    """Any one byte changed: refused, or harmless because the content is equal to the bit."""
    (path,) = write(tmp_path, 3)
    data = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for place in [*range(0, 60), *(draw.randrange(len(data)) for _ in range(150))]:
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        try:
            loaded = load_checkpoint(path)
        except UserError:
            refused += 1
        else:
            assert torch.equal(loaded["big"], torch.arange(4000.0))
            assert loaded["categories"] == ["cat", "dog"]
    assert refused > 100


def test_foreign_files_are_described_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(UserError, match=r"a state dict of 2 tensors.*model\.init_from="):
        load_checkpoint(path)
    torch.save({"model": {}, "args": 1}, path)
    with pytest.raises(UserError, match="a dictionary with the keys model, args"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="a list"):
        load_checkpoint(path)
    torch.save(torch.nn.Linear(2, 2).state_dict(), path, _use_new_zipfile_serialization=False)
    assert set(read_torch_file(path)) == {"weight", "bias"}
    path.write_text("not a checkpoint at all")
    with pytest.raises(UserError, match=r"resnet\.pt"):
        load_checkpoint(path)
    with pytest.raises(UserError, match="holds no checkpoint") as raised:
        load_checkpoint(tmp_path)
    assert "--run" not in str(raised.value)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=f"--run {tmp_path}$"):
        load_checkpoint(tmp_path)


class Payload:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize("writer", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_file_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    writer({"format": "megdet_hvd checkpoint", "x": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, 4, 8)
    with pytest.raises(UserError, match=r"no such.*iteration_00000004\.pt, iteration_00000008\.pt"):
        load_checkpoint(tmp_path / "iteration_00000009.pt")


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megdet_hvd.checkpoint.file.VERSION", 2)
    (path,) = write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 2, and this megdet_hvd reads formats up to 1"):
        load_checkpoint(path)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "iteration_00000001.pt"
    content = state()
    content["optimizer"]["param_groups"][0]["lr"] = np.float64(0.02)
    with pytest.raises(TypeError, match=r"optimizer\.param_groups\[0\]\.lr holds a float64"):
        save_checkpoint(path, content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no file size limit on this system")
def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 5)
    before = path.read_bytes()
    check = "tests.checkpoint.check_full_disk:refused"
    (said,) = on_ranks(check, 1, path, launcher="python").values
    assert said.startswith(f"{path}: cannot be written (File too large)")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_an_error_at_the_very_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (path,) = write(tmp_path, 5)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, fail)
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(path, state(6))
    monkeypatch.undo()
    assert load_checkpoint(path)["iteration"] == 5
    assert os.listdir(tmp_path) == [path.name]


class Wish:
    """A class of somebody's training program."""


def test_what_torchvisions_trainer_writes_is_read(tmp_path: Path) -> None:
    state = torch.nn.Linear(2, 2).state_dict()
    args = argparse.Namespace(lr=0.02, aspect_ratio_group_factor=3, weights=None)
    path = tmp_path / "model_25.pth"
    for zipped in (True, False):
        content = {"model": state, "args": args, "epoch": 25}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert read_torch_file(path)["args"] == args
        found = read_weights(path, "model.init_from")
        assert torch.equal(found["weight"], state["weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_other_classes_are_refused_with_the_command_that_helps(
    tmp_path: Path, zipped: bool
) -> None:
    linear = torch.nn.Linear(2, 2)
    path = tmp_path / "it's a file.pth"
    content = {"model": linear, "wish": Wish()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for read in (read_torch_file, lambda file: read_weights(file, "model.init_from")):
        with pytest.raises(UserError) as raised:
            read(path)
        text = str(raised.value)
        assert "Linear" in text or "Wish" in text
        assert "\x1b" not in text and len(text.splitlines()) == 2
        words = shlex.split(text.splitlines()[1])
        assert words[:2] == ["python", "-c"] and len(words) == 3
    exec(words[2], {})
    plain = read_weights(tmp_path / "it's a file_plain.pth", "model.init_from")
    assert torch.equal(plain["weight"], linear.weight)
