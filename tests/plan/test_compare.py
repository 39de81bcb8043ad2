"""A run's metrics beside the prediction."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from megdet_hvd.config.load import load_config, to_yaml
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.errors import UserError
from megdet_hvd.plan.__main__ import main
from megdet_hvd.plan.compare import Measured, comparison_lines, measured_run, run_prediction
from tests.plan.asked import question

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, step_s: float, data_s: float = 0.0, **split: float) -> Path:
    config = load_config(ROOT / "configs/coco_016.yaml")
    (folder / "config.yaml").write_text(to_yaml(config))
    lines = [
        {
            "kind": "train",
            "iteration": 20 * (k + 1),
            "step_s": 9.0 if k == 0 else step_s,
            "data_s": data_s,
            "images_per_s": 16 / step_s,
            **{f"split_{name}_s": value for name, value in split.items()},
        }
        for k in range(4)
    ]
    lines.append({"kind": "eval", "iteration": 80, "AP": 0.3})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_medians_without_the_first_line(tmp_path: Path) -> None:
    found = measured_run(run(tmp_path, 0.3, 0.05), 8)
    assert found == Measured(0.3, 0.05, 16 / 0.3, 3, 8)


def verdict(folder: Path, step_s: float, data_s: float) -> str:
    measured = measured_run(run(folder, step_s, data_s), 8)
    lines = comparison_lines(folder, measured, run_prediction(question(), folder, measured))
    assert sum("not recorded" in line for line in lines) == 4
    return lines[-1]


def test_the_term_that_was_wrong_is_named(tmp_path: Path) -> None:
    assert "within 10 %, no term stands out" in verdict(tmp_path, 0.31, 0.0)
    assert "the wait for pictures is what was wrong, by -230 ms" in verdict(tmp_path, 0.5, 0.23)
    said = verdict(tmp_path, 0.6, 0.01)
    assert "outside the wait for pictures" in said and "can't be told" in said


def test_the_parts_that_training_recorded_stand_beside_theirs(tmp_path: Path) -> None:
    split = {"compute": 0.2, "bn": 0.3, "gradients": 0.02, "waiting": 0.05}
    measured = measured_run(run(tmp_path, 0.6, 0.03, **split), 8)
    assert measured.parts == {f"split_{name}_s": value for name, value in split.items()}
    row = run_prediction(question(), tmp_path, measured)
    lines = comparison_lines(tmp_path, measured, row)
    by_name = {line[:26].strip(): line[26:].split() for line in lines[2:-1]}
    assert by_name["BN messages"][1] == "300.0"
    assert by_name["stragglers"][:2] == [f"{1e3 * row.step.stragglers:.1f}", "50.0"]
    assert by_name["gradients"][:2] == [f"{1e3 * row.step.gradients:.1f}", "20.0"]
    compute = row.step.compute + row.step.bn_work
    expected = [f"{1e3 * compute:.1f}", "200.0", f"{compute / 0.2 - 1:+.0%}"]
    assert by_name["compute, with CGBN's own"] == expected
    gap = 1e3 * (row.step.bn_messages - 0.3)
    assert lines[-1].endswith(f"and BN messages is what was wrong most, by {gap:+.0f} ms")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 0.4)
    assert main(["--compare", str(tmp_path), "--gpus", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    step = next(line for line in lines if line.startswith("step"))
    assert step.split()[1:] == ["299.6", "400.0", "-25%"]
    assert main(["--compare", str(tmp_path), "--gpus", "8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["measured"]["step_s"] == 0.4 and answer["predicted"]["batch"] == 16
    assert not {"hours", "iterations", "evaluation_s"} & set(answer["predicted"])  # of its pictures
    assert main(["--compare", str(tmp_path)]) == 2
    assert "it has no checkpoint that would say how many GPUs" in capsys.readouterr().err


def test_a_run_of_one_line_is_taken_as_it_is(tmp_path: Path) -> None:
    file = run(tmp_path, 0.3) / "metrics.jsonl"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    found = measured_run(tmp_path, 8)
    assert (found.step_s, found.lines) == (9.0, 1)


def test_what_the_prediction_does_not_know_of_the_run_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, 0.4)
    config = load_config(tmp_path / "config.yaml", ["device=cpu", "model.backbone=resnet18"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert main(["--compare", str(tmp_path), "--gpus", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "8 GPUs, batch 16, medians of 3 lines" in lines[0]
    assert any(line.startswith("profile v100 was timed with resnet50") for line in lines)
    assert any(line.startswith("device=cpu, and profile v100 is a GPU's") for line in lines)


def test_machines_of_another_size_show_by_the_bn_size(tmp_path: Path) -> None:
    measured = measured_run(run(tmp_path, 0.4), 8)
    for sizes, said in ((None, 0), ((16,), 0), ((8,), 1)):
        known = replace(measured, bn_images=sizes)
        row = run_prediction(question(), tmp_path, known)
        lines = comparison_lines(tmp_path, known, row)
        assert sum("images, and over 16 on the machines" in line for line in lines) == said


def test_processes_and_bn_size_are_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = SavedLayout(16, 8, 1, "cgbn", (8,))
    monkeypatch.setattr("megdet_hvd.plan.compare.read_saved_layout", lambda _: saved)
    found = measured_run(run(tmp_path, 0.4), None)
    assert (found.processes, found.bn_images) == (8, (8,))


def test_a_run_without_steps_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 0.3)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has no line with a step's time yet"):
        measured_run(tmp_path, 8)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="can't read its metrics"):
        measured_run(tmp_path, 8)


@pytest.mark.parametrize("key", ["step_s", "data_s", "images_per_s", "split_bn_s"])
@pytest.mark.parametrize("value", [None, "0.3", True, float("nan"), float("inf"), -1.0, 10**400])
def test_lines_of_which_a_number_is_none_are_left_out(
    tmp_path: Path, key: str, value: object
) -> None:
    folder = run(tmp_path, 0.3, 0.05, compute=0.1, bn=0.1, gradients=0.02, waiting=0.01)
    whole = measured_run(folder, 8)
    file = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines.append({**lines[3], "iteration": 100, key: value})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = measured_run(folder, 8)
    assert (found.step_s, found.parts) == (whole.step_s, whole.parts)
    assert found.lines == whole.lines + (key == "split_bn_s")


def test_steps_that_took_no_time_are_none(tmp_path: Path) -> None:
    file = run(tmp_path, 0.3, 0.05) / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**line, "step_s": 0.0}) + "\n" for line in lines))
    with pytest.raises(UserError, match="no line with a step's time yet"):
        measured_run(tmp_path, 8)
