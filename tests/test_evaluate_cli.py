import json
from pathlib import Path

import pytest

from megdet_hvd.data.scenes.cache import scenes_folder
from megdet_hvd.evaluate import main, make_evaluation_plan
from megdet_hvd.model.detector import Detector
from tests.evaluation.checkpoints import write_checkpoint
from tests.evaluation.sets import CATEGORY_IDS, write_set
from tests.evaluation.test_coco_ap import directly, without_id_zero
from tests.pool import Done, on_ranks
from tests.ranks import Launcher


def evaluated(np: int, launcher: Launcher, *words: object) -> Done:
    """``python -m megdet_hvd.evaluate WORDS…``."""
    module = "megdet_hvd.evaluate"
    return on_ranks("tests.programs:run", np, module, [*map(str, words)], launcher=launcher)


def test_alone_and_by_two_processes(tmp_path: Path) -> None:
    """What is printed is what pycocotools makes of the file that is written."""
    checkpoint = tmp_path / "best.pt"
    write_checkpoint(checkpoint)
    source = write_set(tmp_path / "set", [7, 3, 12, 9, 40], sizes=((120, 90), (90, 140)))
    config = tmp_path / "pictures.yaml"
    config.write_text(
        f"data:\n  kind: coco\n  min_sizes: [64]\n  max_size: 96\n"
        f"  train: &files\n  - annotations: {source.annotations}\n    images: {source.images}\n"
        f"  val: *files\n"
    )
    texts = []
    launchers: dict[int, Launcher] = {1: "python", 2: "mpirun"}
    for np, launcher in launchers.items():
        out = tmp_path / f"results of {np}.json"
        words = ["--checkpoint", checkpoint, "--config", config, "--out", out, "data.workers=0"]
        done = evaluated(np, launcher, *words)
        assert done.values == [0] * np, done.stdout
        results = json.loads(out.read_text())
        assert len(results) > 50
        assert {entry["category_id"] for entry in results} <= set(CATEGORY_IDS)
        assert {entry["image_id"] for entry in results} <= {7, 3, 12, 9, 40}
        stats, per_class = directly(without_id_zero(source, tmp_path), out)
        assert f"AP    IoU 0.50:0.95              {stats[0]:.3f}" in done.stdout
        assert f"AR100 100 detections a picture   {stats[8]:.3f}" in done.stdout
        for name, ap in per_class.items():
            shown = "no ground truth" if ap < 0 else f"{ap:.3f}"
            assert f"  {name:<13} {shown}" in done.stdout
        assert f"{checkpoint}, iteration 100" in done.stdout
        texts.append([entry["image_id"] for entry in results])
    assert texts[0] == texts[1]


def test_other_categories_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt")
    source = write_set(tmp_path / "set", [1, 2, 3], categories={3: "cat", 17: "bus", 44: "dog"})
    files = json.dumps([source.model_dump()])
    arguments = [f"data.{key}={files}" for key in ("train", "val")]
    words = ["--checkpoint", tmp_path / "best.pt", "data.kind=coco", *arguments]
    done = evaluated(1, "python", *words)
    assert done.values == [2], done.stdout
    assert "category 17: 'traffic light' against 'bus'" in done.stdout
    assert "Traceback" not in done.stdout


def test_bad_input_is_one_message_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(tmp_path / "none.pt")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/none.pt: no such checkpoint file\n"
    checkpoint = tmp_path / "iteration_00000200.pt"
    write_checkpoint(tmp_path / "iteration_00000100.pt")
    write_checkpoint(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert main(["--checkpoint", str(checkpoint)]) == 2
    message = capsys.readouterr().err
    assert "iteration_00000200.pt is damaged" in message
    assert "the previous good one is iteration_00000100.pt" in message
    assert main(["--checkpoint", str(tmp_path / "iteration_00000100.pt"), "data.min_size=3"]) == 2
    assert "data.min_sizes" in capsys.readouterr().err


def test_the_model_is_the_checkpoints_and_settings_come_on_top(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt")
    config = tmp_path / "other.yaml"
    config.write_text("model:\n  fpn_channels: 128\ndata:\n  min_sizes: [96]\n")
    overrides = ["model.roi.score_threshold=0.25", "evaluation.max_images=3"]
    plan = make_evaluation_plan(tmp_path / "best.pt", config, overrides, None)
    assert plan.config.model.fpn_channels == 16
    assert plan.config.model.roi.score_threshold == 0.25
    assert plan.config.data.min_sizes == (96,)
    assert plan.config.evaluation.max_images == 3
    built = plan.trained.build(model=plan.config.model)
    assert isinstance(built, Detector) and built.config.roi.score_threshold == 0.25


def test_a_checkpoint_names_no_place_to_write_to(tmp_path: Path) -> None:
    """Scenes are read from where it says, but rendered where we say."""
    there = tmp_path / "there"
    settings = ["data.kind=scenes", f"data.scenes.cache={there}", f"data.index_cache={there}"]
    write_checkpoint(tmp_path / "best.pt", settings)
    data = make_evaluation_plan(tmp_path / "best.pt", None, [], None).config.data
    scenes = data.scenes
    assert (scenes.cache, data.index_cache) == ("auto", "auto")
    own = [f"data.scenes.cache={tmp_path}"]
    assert (
        make_evaluation_plan(tmp_path / "best.pt", None, own, None).config.data.scenes.cache
        == own[0][18:]
    )
    scenes_folder(scenes.model_copy(update={"cache": str(there)})).mkdir(parents=True)
    found = make_evaluation_plan(tmp_path / "best.pt", None, [], None).config.data.scenes
    assert found.cache == str(there)
