"""Published runs: the split's rule, the fit on runs that follow the model, and the pages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from megdet_hvd.plan import page
from megdet_hvd.plan.compute import Compute
from megdet_hvd.plan.fit import (
    FULL,
    LINE,
    SharedFit,
    communication_s,
    known_point,
    known_stack,
    mlperf_bytes,
    predicted_s,
)
from megdet_hvd.plan.page import fitted_text, pages, plan_blocks, readme_blocks
from megdet_hvd.plan.prediction import shared_constants
from megdet_hvd.plan.published import DATA, PublishedRun, mlperf_runs
from megdet_hvd.plan.reported import aws, other_models, synchronised_bn, whole_runs
from megdet_hvd.plan.split import stacks
from megdet_hvd.plan.validation import GOALS, ablations, median_worst, validate

ROOT = Path(__file__).resolve().parents[2]


def made(
    ranks: int, images: int, *, system: str = "s", machines: int | None = None
) -> PublishedRun:
    count = machines or max(1, ranks // 8)
    return PublishedRun(
        "v9",
        "Us",
        system,
        "A100 SXM 80GB",
        ranks,
        count,
        (8, 200.0),
        ranks * images,
        0.1,
        "14-14",
        9.0,
        "here",
    )


def test_every_row_has_its_address_and_its_batch() -> None:
    runs = mlperf_runs()
    assert len(runs) == 138
    for run in runs:
        assert run.address.startswith(f"github.com/mlcommons/training_results_{run.version} @ ")
        assert run.address.endswith(f"{run.submitter}/results/{run.system}/maskrcnn")
        assert run.batch % run.ranks == 0 and 0.005 < run.step_s < 1
    by_name = {run.system: run for run in runs}
    dell = by_name["16xXE8545x4A100-SXM-40GB"]
    assert (dell.ranks, dell.machines, dell.images, dell.step_s) == (64, 16, 2, 0.0471)
    assert by_name["dgxa100_n48_ngc22.04_pytorch"].ranks == 256  # 128 more only evaluate
    early = by_name["dgxa100_ngc20.06_pytorch"]
    assert early.step_s == pytest.approx(293.0 * 64 / 117266)


def test_the_rule_of_the_split() -> None:
    runs = [
        made(64, 2),
        made(256, 1),
        made(8, 12, system="b"),
        made(8, 12, system="a"),
        made(32, 4),
        made(16, 12, machines=2),
    ]
    (stack,) = stacks(runs)

    def shown(some: tuple[PublishedRun, ...]) -> list[tuple[int, int]]:
        return [(run.ranks, run.images) for run in some]

    assert shown(stack.fit) == [(8, 12), (32, 4)] and stack.fit[0].system == "a"
    assert shown(stack.test) == [(64, 2)]
    assert stack.point is stack.fit[0]
    assert shown(stack.point_test) == [(16, 12), (32, 4), (64, 2)]
    assert shown(stack.single_image) == [(256, 1)]
    assert stacks([replace(run, machines=None) for run in runs])[0].point is None


def test_no_row_is_both_known_and_predicted() -> None:
    for stack in stacks(mlperf_runs()):
        assert not set(stack.fit) & set(stack.test)
        assert stack.point not in stack.point_test
        assert all(run.images >= 2 for run in (*stack.fit, *stack.test, *stack.point_test))
        assert all(run.images == 1 for run in stack.single_image)


def test_runs_that_follow_the_model_give_its_constants_back() -> None:
    truth, spread, runs = 2.3, 0.4, []
    shapes = (((8, 12), (64, 2)), ((8, 12), (16, 4)), ((8, 24), (128, 8)), ((8, 4), (128, 2)))
    for number, known in enumerate(shapes):  # n₀ and σ look alike where all are of one shape
        image_s = 0.005 * (number + 1)
        compute = Compute(image_s, truth * image_s)
        for ranks, images in (*known, (256, 2)):
            run = replace(made(ranks, images), submitter=f"S{number}")
            runs.append(replace(run, step_s=predicted_s(run, compute, spread)))
    made_up = stacks(runs)
    shared = SharedFit(FULL).fit(made_up)
    assert shared.overhead_images == pytest.approx(truth, abs=0.01)
    assert shared.spread == pytest.approx(spread, abs=0.005)
    for stack in made_up:
        for run in stack.test:
            again = predicted_s(run, known_stack(stack.fit, spread), spread)
            assert again == pytest.approx(run.step_s)
            assert stack.point is not None
            alone = predicted_s(run, known_point(stack.point, shared), shared.spread)
            assert alone == pytest.approx(run.step_s, rel=0.005)


def test_the_known_rows_are_met_exactly() -> None:
    shared = validate().shared
    for stack in validate().stacks:
        for run in stack.fit:
            met = predicted_s(run, known_stack(stack.fit, shared.spread), shared.spread)
            assert met == pytest.approx(run.step_s, rel=1e-3)
            line = predicted_s(run, known_stack(stack.fit, 0, LINE), 0, LINE)
            assert line == pytest.approx(run.step_s)


def test_float16_gradients_of_mask_r_cnn_are_sent() -> None:
    assert mlperf_bytes() == pytest.approx(88.5e6, rel=0.01)
    dell = next(run for run in mlperf_runs() if run.system == "32xXE8545x4A100-SXM-40GB")
    assert 0 < communication_s(dell, 0.05, mlperf_bytes()) < 1e-3


def test_the_errors_are_those_of_the_page() -> None:
    result = validate()
    assert (len(result.a), len(result.b), len(result.c)) == (7, 24, 6)
    for name, rows in (("a", result.a), ("b", result.b)):
        median, worst = median_worst([held.error(held.left_out_s) for held in rows])
        assert median <= GOALS[name][0] and worst <= GOALS[name][1]
    line = median_worst([held.error(held.baseline_s) for held in result.a])
    assert list(line) == pytest.approx([0.0441, 0.2038], abs=1e-3)
    assert result.free_parameters == (2, 10, 16)


def test_what_a_term_is_worth_is_what_the_page_says() -> None:
    every = {one.name: one for one in ablations()}
    both, silent = every["all terms"], every["without communication"]
    assert abs(both.a[0] - silent.a[0]) < 0.005 and abs(both.b[0] - silent.b[0]) < 0.005
    assert every["without stragglers"].a[0] > 2 * both.a[0]
    assert every["baseline, neither"].b[0] <= both.b[0]


def test_what_is_reported_beside() -> None:
    known, two, four = aws(validate().shared)
    assert known.error == pytest.approx(0, abs=1e-9)
    assert [round(row.published[0], 3) for row in (known, two, four)] == [0.381, 0.404, 0.451]
    assert synchronised_bn().published[0] == pytest.approx(0.32, abs=0.005)
    deeper, fixed = other_models(validate().shared)
    assert deeper.published == (0.286 / 0.209,) * 2 and abs(deeper.error) < 0.03
    assert fixed.published == (0.2288, 0.2288) and abs(fixed.error) < 0.05
    count, median, worst = whole_runs()
    assert count == 138 and median < 0.03 and worst < 0.25


def test_the_constants_are_those_of_the_fit() -> None:
    assert (DATA / "fitted.json").read_text(encoding="utf-8") == fitted_text(validate())
    assert shared_constants() == validate().shared


def test_the_pages_say_what_the_program_says() -> None:
    for file, text in pages(ROOT, validate()).items():
        assert file.read_text(encoding="utf-8") == text, (
            "write it anew: python -m megdet_hvd.plan.page"
        )


def test_the_program_writes_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("docs/plan.md", "README.md"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(page, "checkout", lambda: tmp_path)
    assert page.main(["--check"]) == 0 and capsys.readouterr().out == ""
    readme = tmp_path / "README.md"
    right = readme.read_text(encoding="utf-8")
    readme.write_text(right.replace("| 8, 16 |", "| 8, 17 |"), encoding="utf-8")
    assert page.main(["--check"]) == 1
    assert capsys.readouterr().out == f"{readme}: differs\n"
    assert page.main([]) == 0 and readme.read_text(encoding="utf-8") == right
    with Image.open(tmp_path / "docs" / "plan_validation.png") as picture:
        assert picture.size == (1210, 572)
    monkeypatch.setattr(page, "checkout", lambda: None)
    assert page.main([]) == 2
    with pytest.raises(ValueError, match="block x stands 0 times"):
        page.filled("no marks", {"x": ""})


def test_readme_has_the_five_sizes_beside_the_papers_times() -> None:
    lines = readme_blocks(validate())["plan"].splitlines()
    cells = [line.strip("|").split("|") for line in lines[2:7]]
    assert [row[0].strip() for row in cells] == ["8, 16", "16, 32", "32, 64", "64, 128", "128, 256"]
    assert [row[-1].strip() for row in cells] == ["33", "", "", "", "4"]
    assert len(lines) <= 9
    assert "| a | 7 |" in plan_blocks(validate())["result"]


def test_the_data_files_are_small_and_parse() -> None:
    for file in DATA.iterdir():
        assert file.stat().st_size < 100_000
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
