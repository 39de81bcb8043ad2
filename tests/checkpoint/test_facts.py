import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet_hvd.checkpoint.facts import Absent, read_facts, read_saved_layout
from megdet_hvd.checkpoint.file import load_checkpoint, save_checkpoint
from megdet_hvd.config.load import config_to_dict, load_config
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.errors import UserError
from tests.checkpoint.test_file import flip_a_bit, state, write
from tests.ranks import ROOT


def plain(value: Any) -> Any:
    """``value`` with a mark for each tensor, whichever reader it comes from."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return "tensor" if isinstance(value, torch.Tensor | Absent) else value


def test_plain_values_are_those_that_torch_reads(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "checkpoints", 1200)
    facts = read_facts(tmp_path)
    assert plain(facts) == plain(load_checkpoint(path))
    assert facts["config"]["global_batch"] == 16 and facts["iteration"] == 1200
    assert isinstance(facts["big"], Absent)


def test_processes_are_read_where_there_is_no_torch(tmp_path: Path) -> None:
    tree = config_to_dict(load_config(None, ["global_batch=16", "learning.accumulation=2"]))
    content = {**state(3), "config": tree, "world": 4, "bn_groups": [[0, 1], [2, 3]]}
    save_checkpoint(tmp_path / "iteration_00000003.pt", content)
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from megdet_hvd.checkpoint.facts import read_saved_layout\n"
        "print(read_saved_layout(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(SavedLayout(16, 4, 2, "cgbn", (4,))), done.stderr


def test_a_checkpoint_that_does_not_say_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(UserError, match="does not say on which processes"):
        read_saved_layout(tmp_path)


def test_damage_in_a_tensor_is_not_this_readers_business(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 3)
    flip_a_bit(path)
    assert read_facts(path)["iteration"] == 3


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "iteration_00000001.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="not a checkpoint of megdet_hvd"):
        read_facts(path)
    whole = write(tmp_path, 2)[0].read_bytes()
    for content in (b"", b"no zip at all", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            read_facts(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02garbage")
    with pytest.raises(UserError, match="its values can't be read"):
        read_facts(path)
    with pytest.raises(UserError, match="no such checkpoint"):
        read_facts(tmp_path / "iteration_00000009.pt")


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.mkdir, (self.target,))


def test_nothing_is_executed(tmp_path: Path) -> None:
    path, made = tmp_path / "iteration_00000001.pt", tmp_path / "executed"
    content = {"format": "megdet_hvd checkpoint", "x": Payload(made)}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))
    assert isinstance(read_facts(path)["x"], Absent)
    assert not made.exists()
