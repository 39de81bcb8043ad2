"""Code that a checkpoint names is not imported, unless the user names it or trusts the file."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet_hvd.checkpoint.file import save_checkpoint
from megdet_hvd.config.load import config_to_dict, load_config
from megdet_hvd.errors import UserError
from megdet_hvd.evaluate import make_evaluation_plan
from megdet_hvd.evaluation.predictor import load_detector
from megdet_hvd.predict import main as predict
from tests.evaluation.over_ranks import SMALL
from tests.evaluation.sets import CATEGORY_IDS, NAMES, write_set
from tests.extending.parts import Tiny
from tests.pool import on_ranks
from tests.test_predict_cli import picture

STRANGER = "from tests.extending.parts import pictures, tiny\nopen('was_here', 'a').close()\n"
DETECTOR, MEASURES = "model.detector=stranger:tiny", "evaluation.measures=[stranger:pictures]"
OTHERS = ("learning.optimizer=no_such:build", "log.loggers=[no_such:Lines]")


def write_own(path: Path, *words: str, ids: Sequence[int] = CATEGORY_IDS) -> Path:
    """A checkpoint of a detector of one's own."""
    config = load_config(None, [*SMALL, *words])
    content = {
        "config": config_to_dict(config),
        "categories": list(NAMES),
        "category_ids": list(ids),
        "model": Tiny(len(NAMES)).state_dict(),
        "images_seen": 800,
        "iteration": 100,
    }
    save_checkpoint(path, content)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """It names code in all places, of a module beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text(STRANGER)
    yield write_own(tmp_path / "a.pt", DETECTOR, MEASURES, *OTHERS)
    sys.modules.pop("stranger", None)


def imported(work: Callable[[], Any]) -> bool:
    """Whether the stranger's module has run, once ``work`` is done."""
    work()
    return Path("was_here").exists()


def refused(work: Callable[[], Any], named: str) -> None:
    with pytest.raises(UserError) as caught:
        work()
    told = str(caught.value)
    assert "a.pt names code that it needs run: " in told and named in told
    assert "--trust-code" in told and not Path("was_here").exists()


def test_evaluation_imports_what_the_user_names(checkpoint: Path) -> None:
    def plan(*words: str, file: Path | None = None, trust: bool = False) -> Any:
        return make_evaluation_plan(checkpoint, file, words, None, trust_code=trust)

    refused(plan, "model.detector=stranger:tiny, evaluation.measures=stranger:pictures. A")
    refused(lambda: plan(DETECTOR), "run: evaluation.measures=stranger:pictures. A")
    # What it says to write is all that is missing, and is taken as it stands.
    refused(plan, f"({DETECTOR} {MEASURES}), or")
    refused(lambda: plan(DETECTOR), f"({MEASURES}), or")
    refused(lambda: plan(DETECTOR, "evaluation.measures.0=stranger:tiny"), "evaluation.measures")
    others = checkpoint.with_name("other.yaml")
    others.write_text("evaluation: {measures: ['stranger:pictures']}\n")
    refused(lambda: plan(file=others), "run: model.detector=stranger:tiny. A")
    assert imported(lambda: plan(DETECTOR, file=others))
    assert not plan(DETECTOR, "evaluation.measures=[]").own.measures
    assert [name for name, _ in plan(DETECTOR, MEASURES).own.measures] == ["stranger:pictures"]


def test_evaluation_of_a_trusted_file(checkpoint: Path) -> None:
    assert imported(lambda: make_evaluation_plan(checkpoint, None, [], None, trust_code=True))


def test_prediction_imports_what_the_user_names(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(lambda: load_detector(checkpoint, "cpu"), "run: model.detector=stranger:tiny. A")
    with pytest.raises(UserError, match=r"model.detector=tiny: code of your own is named"):
        load_detector(checkpoint, "cpu", detector="tiny")
    words = ["--checkpoint", str(checkpoint), "--device", "cpu", "--score", "0", "--out", "out"]
    words.append(str(picture(Path("x.png"))))
    assert predict(words) == 2 and not Path("was_here").exists()
    told = capsys.readouterr().err
    assert "names code that it needs run: model.detector=stranger:tiny" in told
    assert '(--detector stranger:tiny; in Python, detector="stranger:tiny"), or' in told
    assert imported(lambda: predict([*words, "--detector", "stranger:tiny"]))
    assert "x.png: " in capsys.readouterr().out
    Path("was_here").unlink()
    del sys.modules["stranger"]
    assert imported(lambda: load_detector(checkpoint, "cpu", trust_code=True))
    (found,) = load_detector(checkpoint, "cpu", detector=lambda *_: Tiny(len(NAMES)))("x.png")
    assert found.boxes.tolist() == [[0.0, 0.0, 90.0, 60.0]] and found.labels.dtype == torch.int64


def test_a_data_set_is_not_opened_unasked_either(checkpoint: Path) -> None:
    own = ["data.kind=own", "data.dataset=stranger:tiny"]
    write_own(checkpoint, *own)
    words = ["model.detector=null", "evaluation.measures=[]"]
    refused(
        lambda: make_evaluation_plan(checkpoint, None, words, None),
        "run: data.dataset=stranger:tiny. A",
    )
    assert make_evaluation_plan(checkpoint, None, ["data.dataset=null", "data.kind=scenes"], None)
    assert not Path("was_here").exists()
    assert imported(lambda: make_evaluation_plan(checkpoint, None, own[1:], None))


def test_the_program_evaluates_it(tmp_path: Path) -> None:
    """With numbers of one's own below COCO's, and on a data set of one's own."""
    parts = "tests.extending.parts"
    file = write_own(tmp_path / "a.pt", f"model.detector={parts}:tiny")
    source = write_set(tmp_path / "set", [7, 3, 12], sizes=((120, 90), (90, 140)))
    config = tmp_path / "pictures.yaml"
    config.write_text(
        f"data:\n  kind: coco\n  train: &files\n  - annotations: {source.annotations}\n"
        f"    images: {source.images}\n  val: *files\n  workers: 0\n"
    )
    words = ["--checkpoint", str(file), "--config", str(config), f"model.detector={parts}:tiny"]
    words.append(f"evaluation.measures=[{parts}:pictures]")
    done = on_ranks("tests.programs:run", 1, "megdet_hvd.evaluate", words, launcher="python")
    assert done.values == [0], done.stdout
    assert "3 pictures, 3 detections" in done.stdout
    assert f"your own (evaluation.measures)\n  {'pictures':<32} 3.000" in done.stdout
    write_own(file, f"model.detector={parts}:tiny", ids=(1, 2, 3))
    words = [*words[:2], *words[4:], "data.kind=own", f"data.dataset={parts}:pets"]
    words += ["data.workers=1", "--out", str(tmp_path / "found.json")]
    done = on_ranks("tests.programs:run", 1, "megdet_hvd.evaluate", words, launcher="python")
    assert done.values == [0], done.stdout
    assert f"on {parts}:pets('val')" in done.stdout
    results = json.loads((tmp_path / "found.json").read_text())
    assert [one["image_id"] for one in results] == ["p0", "p1", "p2", "p3"]
    assert all(one["bbox"] == [0.0, 0.0, 40.0, 30.0] for one in results)
