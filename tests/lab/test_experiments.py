from typing import Any

from megdet_hvd.lab.experiments import EXPERIMENTS, percent, points, run_row
from megdet_hvd.lab.overhead import seconds_a_picture
from megdet_hvd.lab.report import _made_on
from megdet_hvd.lab.runs import BN_SIZE_RUNS, FIGURE4, TABLE2, judged_runs, rate_runs
from megdet_hvd.lab.scale import FULL


def test_a_mean_stands_with_its_seeds_and_a_difference_with_its_error() -> None:
    assert percent([0.51, None, 0.53]) == "52.0 (51.0 – 53.0)"
    assert percent([0.51]) == "51.0" and percent([None, None]) == percent([]) == "–"
    # 1, 2 and 6 points: mean 3, s = √7, s/√3 = 1.53.
    assert points([0.01, 0.02, 0.06]) == "+3.0 ± 1.5 (+1.0 +2.0 +6.0)"
    assert points([-0.02, None]) == "-2.0 (-2.0 –)" and points([0.004]) == "+0.4"


def record(ap: float | None, **given: Any) -> dict[str, Any]:
    end = None if ap is not None else {"at": 40, "why": "the loss is not finite"}
    scores = [] if ap is None else [{"epoch": 11.0, "AP": ap}]
    return {"updates": 331, "diverged": end, "scores": scores, **given}


def test_differences_are_taken_within_a_seed() -> None:
    run, base = TABLE2[4], TABLE2[0]
    found = {(base.name, seed): record(ap) for seed, ap in enumerate((0.50, 0.40, 0.45))}
    found |= {(run.name, seed): record(ap) for seed, ap in enumerate((0.52, None, 0.44))}
    cells = run_row(run, FULL, found, (0, 1, 2), base)
    assert cells == [
        *("331", "**1 of 3**, at update 40", "48.0 (52.0 – 44.0)", "+0.5 ± 1.5 (+2.0 – -1.0)")
    ]


def test_a_row_ends_with_its_last_score_and_shows_how_far_the_longest_seed_came() -> None:
    scores = [{"epoch": 1.0, "AP": 0.2}, {"epoch": 2.0, "AP": 0.3}]
    run = TABLE2[0]
    found = {(run.name, 0): record(None), (run.name, 1): record(0.3, scores=scores)}
    found[run.name, 0]["updates"] = 39
    cells = run_row(run, FULL, found, (0, 1), run)
    assert cells == ["331", "**1 of 2**, at update 40", "30.0 (– 30.0)", ""]


def test_the_largest_rate_that_trains_is_named() -> None:
    table = next(one for one in EXPERIMENTS if one.name == "rates").table
    found = {
        (run.name, 7): record(0.0 if run.rate_factor in (0.5, 2) else None)
        for run in rate_runs(FULL)
    }
    lines = table(FULL, found, (7,))
    bad = "**diverges**, update 40"
    assert lines[2] == f"| 8 | frozen | trains | {bad} | trains | {bad} | {bad} | 0.08 |"
    assert lines[-1].endswith("| 0.64 |") and len(lines) == 10


def test_bn_sizes_are_held_against_32_and_measured_twice() -> None:
    table = next(one for one in EXPERIMENTS if one.name == "bn_size").table
    found = {
        (run.name, 0): record(0.4 + 0.001 * (run.bn_size or 0), recalibrated={"AP": 0.5})
        for run in BN_SIZE_RUNS
    }
    found[BN_SIZE_RUNS[1].name, 0] = record(None)
    lines = table(FULL, found, (0,))[2:]
    assert lines[0] == "| 2 | 331 | no | 40.2 | -3.0 | 50.0 |"
    assert lines[1] == "| 4 | 331 | **1 of 1**, at update 40 | – | – | – |"
    assert lines[4] == "| 32 | 331 | no | 43.2 |  | 50.0 |"


def test_curves_are_held_against_each_other_by_epoch_and_seed() -> None:
    table = next(one for one in EXPERIMENTS if one.name == "figure4").table
    small, large = FIGURE4
    found = {
        (small.name, 0): record(0.4, scores=[{"epoch": 1.004, "AP": 0.1}, {"epoch": 2, "AP": 0.3}]),
        (small.name, 1): record(0.4, scores=[{"epoch": 1.004, "AP": 0.2}]),
        (large.name, 0): record(0.4, scores=[{"epoch": 1.96, "AP": 0.05}]),  # large batches,
    }
    assert table(FULL, found, (0, 1))[2:] == [
        "| 1 | 15.0 (10.0 20.0) | 5.0 (5.0 –) | -5.0 (-5.0 –) |",
        "| 2 | 30.0 (30.0 –) | – | – |",
    ]


def test_pictures_show_what_the_records_say() -> None:
    from megdet_hvd.lab import drawing

    curve = {"loss": [[50, 2.0], [100, 1.0]], "initial_loss": 3.0, "epochs": 11.0, "updates": 100}
    found = {(TABLE2[0].name, 0): record(0.4, **curve), (TABLE2[1].name, 2): record(None, **curve)}
    losses, scores = drawing.draw_table2(FULL, found).axes
    assert [list(line.get_xdata()) for line in losses.lines] == [[5.5, 11.0]] * 2
    dot, cross = scores.lines
    assert (dot.get_xdata()[0], dot.get_ydata()[0], dot.get_marker()) == (8, 40.0, "o")
    assert (cross.get_xdata()[0], cross.get_marker()) == (16, "x")
    found = {(FIGURE4[1].name, 0): record(0.4, scores=[{"epoch": 1.5, "AP": 0.25}])}
    (axes,) = drawing.draw_figure4(FULL, found).axes
    assert list(axes.lines[0].get_ydata()) == [25.0]
    rows = [
        {"images": n, "variance": variance, "foreground": {"box": [0.2, 0.1]}}
        for n, variance in ((8, 4.0), (16, 1.0))
    ]
    spread, _ = drawing.draw_variance({("variance-cgbn8-end", 0): {"rows": rows}}).axes
    assert list(spread.lines[0].get_ydata()) == [1 / 8, 1 / 32]  # beside 1/N


def test_a_step_is_as_long_as_its_slowest_process() -> None:
    assert seconds_a_picture([[1.0, 9.0, 4.0], [3.0, 2.0, 6.0]], 2) == 3.0  # of 3, 9 and 6


def test_versions_are_named_where_they_are_not_one() -> None:
    def made_on(*versions: str) -> str:
        found = {
            ("a", seed): {"machine": "m", "versions": {"torch": version}}
            for seed, version in enumerate(versions)
        }
        return _made_on(found)[0]

    assert made_on("2.14.1", "2.14.1") == "2 records, on m."
    assert made_on("2.15.0", "2.14.1") == "2 records, on m; torch 2.14.1, 2.15.0."


def test_rates_are_drawn_by_batch_with_what_became_of_them() -> None:
    from megdet_hvd.lab import drawing

    runs = (*rate_runs(FULL), *judged_runs(FULL))
    found = {(run.name, 0): record(None if run.norm == "frozen" else 0.0) for run in runs}
    for draw, batches in ((drawing.draw_rates, 4), (drawing.draw_large, 2)):
        frozen, cgbn = draw(FULL, found).axes
        for axes, label in ((frozen, "diverges"), (cgbn, "trains")):
            texts = [text.get_text() for text in axes.get_legend().get_texts()]
            assert texts == sorted(["k·r", label])
            assert len({line.get_xdata()[0] for line in axes.lines[1:]}) == batches
