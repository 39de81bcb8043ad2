"""The figures of docs/plan.md and README.md, from the model itself.

``python -m megdet_hvd.plan.page`` in a checkout fits the shared constants, writes
``plan/data/fitted.json``, and then the blocks between ``<!-- begin NAME -->`` and
``<!-- end NAME -->`` of both pages, and docs/plan_validation.png; ``--check`` only says what
differs. A test holds pages and program together.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

from megdet_hvd.command import leave, name_of
from megdet_hvd.errors import UserError
from megdet_hvd.job_folder import checkout
from megdet_hvd.plan import reported
from megdet_hvd.plan.paper_run import paper_rows
from megdet_hvd.plan.prediction import shared_constants
from megdet_hvd.plan.profiles import built_in
from megdet_hvd.plan.published import DATA, PublishedRun
from megdet_hvd.plan.question import TEMPLATES_GPUS
from megdet_hvd.plan.validation import GOALS, Held, HeldOut, ablations, median_worst, validate
from megdet_hvd.version import add_version_option

PAPER_GPUS = ("v100", "a100", "h100")
LARGER = (128, 256, 512, 1024)


def plan_blocks(found: HeldOut) -> dict[str, str]:
    """Each block of docs/plan.md, Markdown."""
    return {
        "split": _split(found),
        "result": _result(found),
        "a": _held(found.a, "left out"),
        "b": _held(found.b, "predicted"),
        "c": _single(found),
        "terms": _terms(),
        "collectives": _beside(reported.collectives(), "µs"),
        "beside": _beside(
            (
                *reported.aws(found.shared),
                reported.synchronised_bn(),
                *reported.other_models(found.shared),
                *reported.memory(),
            ),
            "",
        ),
        "runs": _runs(),
        "paper": _paper(),
        "larger": _larger(),
    }


def readme_blocks(found: HeldOut) -> dict[str, str]:
    """The block of README.md."""
    rows = {gpu: paper_rows(gpu, TEMPLATES_GPUS) for gpu in PAPER_GPUS}
    hours = reported.paper_hours()
    lines = [
        "| GPUs, batch | "
        + " | ".join(f"{gpu.upper()}, h *predicted*" for gpu in PAPER_GPUS)
        + " | h, *paper* |",
        "|---|" + "---|" * (len(PAPER_GPUS) + 1),
    ]
    for at, gpus in enumerate(TEMPLATES_GPUS):
        cells = [f"{rows[gpu][at].hours:.2f}" for gpu in PAPER_GPUS]
        paper = f"{hours[gpus]:g}" if gpus in hours else ""
        batch = rows[PAPER_GPUS[0]][at].batch
        lines.append(f"| {gpus}, {batch} | {' | '.join(cells)} | {paper} |")
    said = []
    for rows_, what in ((found.a, "of known stacks"), (found.b, "with one machine known")):
        ours, line = (
            _pair(median_worst([held.error(getattr(held, key)) for held in rows_]))
            for key in ("left_out_s", "baseline_s")
        )
        said.append(f"{ours} on {len(rows_)} systems {what} (a line a + b·n: {line})")
    lines += ["", f"Errors on MLPerf's steps, median and worst: {'; '.join(said)}."]
    return {"plan": "\n".join(lines)}


def _split(found: HeldOut) -> str:
    def shown(runs: Sequence[PublishedRun]) -> str:
        return " ".join(f"{run.ranks}@{run.images}" for run in runs)

    lines = [
        "| stack | known (a), GPUs@images a GPU | test (a) | known (b) | test (b) | shown |",
        "|---|---|---|---|---|---|",
    ]
    for stack in found.stacks:
        point = [stack.point] if stack.point and stack.point_test else []
        groups = (stack.fit, stack.test, point, stack.point_test, stack.single_image)
        cells = [f" {text} " if text else " " for text in map(shown, groups)]
        lines.append(f"| {stack.name} |{'|'.join(cells)}|")
    return "\n".join(lines)


def _result(found: HeldOut) -> str:
    shared, own_a, own_b = found.free_parameters
    lines = [
        f"n₀ = {found.shared.overhead_images:.2f} images, σ = {found.shared.spread:.2f} of an "
        f"image's time; the baseline's n₀ = {found.baseline.overhead_images:.2f}. Free parameters: "
        f"{shared} shared, and {own_a} (a) or {own_b} (b) of the stacks with tests.",
        "",
        "| | rows | model | the stack left out of n₀ and σ | baseline | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in (("a", found.a), ("b", found.b)):
        ours, left_out, line = (
            median_worst([held.error(getattr(held, key)) for held in rows])
            for key in ("model_s", "left_out_s", "baseline_s")
        )
        goal = GOALS[name]
        met = left_out[0] <= goal[0] and left_out[1] <= goal[1]
        cells = (_pair(pair) for pair in (ours, left_out, line, goal))
        lines.append(
            f"| {name} | {len(rows)} | {' | '.join(cells)} | {'met' if met else '**missed**'} |"
        )
    return "\n".join(lines)


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.1%}, {pair[1]:.1%}"


def _held(rows: Sequence[Held], left_out: str) -> str:
    lines = [
        f"| stack | GPUs | images a GPU | measured ms | model | {left_out} | baseline |",
        "|---|---|---|---|---|---|---|",
    ]
    for held in rows:
        errors = (held.error(s) for s in (held.model_s, held.left_out_s, held.baseline_s))
        lines.append(
            f"| {held.stack} | {held.run.ranks} | {held.run.images} | "
            f"{1e3 * held.run.step_s:.1f} | {' | '.join(f'{error:+.1%}' for error in errors)} |"
        )
    return "\n".join(lines)


def _single(found: HeldOut) -> str:
    lines = [
        "| stack | GPUs | measured ms | model | baseline |",
        "|---|---|---|---|---|",
    ]
    for held in found.c:
        errors = (held.error(seconds) for seconds in (held.model_s, held.baseline_s))
        lines.append(
            f"| {held.stack} | {held.run.ranks} | {1e3 * held.run.step_s:.1f} | "
            f"{' | '.join(f'{error:+.1%}' for error in errors)} |"
        )
    return "\n".join(lines)


def _terms() -> str:
    lines = ["| terms | a: median, worst | b: median, worst |", "|---|---|---|"]
    lines += [f"| {one.name} | {_pair(one.a)} | {_pair(one.b)} |" for one in ablations()]
    return "\n".join(lines)


def _beside(rows: Sequence[reported.Beside], unit: str) -> str:
    lines = [
        f"| | published{f', {unit}' if unit else ''} | predicted | off | at |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = map(_figure, row.published)
        span = low if low == high else f"{low}–{high}"
        lines.append(
            f"| {row.what} | {span} | {_figure(row.predicted)} | {row.error:+.0%} | {row.address} |"
        )
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _runs() -> str:
    count, median, worst = reported.whole_runs()
    return (
        f"Minutes of {count} MLPerf systems by epochs(B) · N/B · (their own step), against the "
        f"minutes that they took: median error {median:.1%}, worst {worst:.1%}. That is what the "
        "spread of epochs over runs, start and evaluation leave open."
    )


def _paper() -> str:
    hours = reported.paper_hours()
    lines = [
        "| GPU | GPUs | batch | step ms | compute | CGBN's work | BN messages | gradients "
        "| stragglers | data | hours | efficiency | GiB | hours, *paper* |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for gpu in PAPER_GPUS:
        for row in paper_rows(gpu, TEMPLATES_GPUS):
            parts = row.step.total, *astuple(row.step)
            paper = f"{hours[row.gpus]:g}" if row.gpus in hours and gpu == PAPER_GPUS[0] else ""
            lines.append(
                f"| {gpu} | {row.gpus} | {row.batch} | "
                f"{' | '.join(f'{1e3 * part:.1f}' for part in parts)} | {row.hours:.2f} | "
                f"{row.efficiency:.0%} | {row.memory.gib:.1f} | {paper} |"
            )
    return "\n".join(lines)


def _larger() -> str:
    lines = [
        "| GPU, network, BN | GPUs | batch | iterations | rate | step ms | BN messages "
        "| gradients | stragglers | efficiency to 8 GPUs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("a100", "a machine's", ()),
        ("a100", "32 images, bn.scope=world", ("bn.scope=world", "bn.size=32")),
        ("a100", "all, bn.scope=world", ("bn.scope=world",)),
        ("a100", "frozen", ("model.norm=frozen",)),
    )
    for gpu, title, overrides in kinds:
        alone = paper_rows(gpu, (8,), *(word for word in overrides if not word.startswith("bn.")))
        first = alone[0].images_per_s / alone[0].gpus
        for row in paper_rows(gpu, LARGER, *overrides):
            lines.append(
                f"| {gpu}, {built_in(gpu).network}, {title} | {row.gpus} | {row.batch} | "
                f"{row.derived.end_iteration} | {row.derived.peak_rate:g} | "
                f"{1e3 * row.step.total:.1f} | {1e3 * row.step.bn_messages:.1f} | "
                f"{1e3 * row.step.gradients:.1f} | {1e3 * row.step.stragglers:.1f} | "
                f"{row.images_per_s / row.gpus / first:.0%} |"
            )
    return "\n".join(lines)


def filled(page: str, blocks: dict[str, str]) -> str:
    """The page with each block's text between its marks.

    Raises:
        ValueError: a block has no place in it.
    """
    for name, text in blocks.items():
        pattern = re.compile(
            rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL
        )
        page, count = pattern.subn(rf"\g<1>{_plain(text)}\n\g<2>", page)
        if count != 1:
            raise ValueError(f"block {name} stands {count} times in the page")
    return page


def _plain(text: str) -> str:
    """With no backslash that a pattern's replacement would read."""
    return text.replace("\\", "\\\\")


def fitted_text(found: HeldOut) -> str:
    """data/fitted.json."""
    shared = found.shared
    return json.dumps({"overhead_images": shared.overhead_images, "spread": shared.spread}) + "\n"


def draw_validation(found: HeldOut, folder: Path) -> None:
    """docs/plan_validation.png: every predicted row against what was measured."""
    from megdet_hvd.plan.plot import new_figure, save

    figure = new_figure(11.0, 5.2)
    left, right = figure.subplots(1, 2)
    kinds = (
        ("a, a known stack", found.a, "o", "tab:blue"),
        ("b, one machine known", found.b, "s", "tab:orange"),
        ("c, 1 image a GPU (no goal)", found.c, "x", "tab:gray"),
    )
    for title, rows, mark, colour in kinds:
        measured = [1e3 * held.run.step_s for held in rows]
        predicted = [1e3 * held.left_out_s for held in rows]
        left.plot(measured, predicted, mark, color=colour, label=title, alpha=0.8)
        errors = [100 * held.error(held.left_out_s) for held in rows]
        right.plot([held.run.ranks for held in rows], errors, mark, color=colour, alpha=0.8)
        line = [100 * held.error(held.baseline_s) for held in rows]
        right.plot([held.run.ranks for held in rows], line, "_", color=colour, markersize=10)
    limits = (8, 400)
    left.plot(limits, limits, "--", color="grey", linewidth=1)
    left.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    left.set_xlabel("measured step, ms (MLPerf)")
    left.set_ylabel("predicted step, ms")
    left.legend(fontsize=8)
    right.axhline(0, color="grey", linewidth=1)
    for bound in (20, 30):
        for sign in (1, -1):
            right.axhline(sign * bound, color="grey", linewidth=0.7, linestyle=":")
    right.set_xscale("log", base=2)
    right.set_xticks([4, 8, 16, 32, 64, 128, 256], ["4", "8", "16", "32", "64", "128", "256"])
    right.set_xlabel("GPUs (dashes: the baseline; dotted: goals' worst, 20 % and 30 %)")
    right.set_ylabel("predicted to measured, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    for file in save(figure, folder, "plan_validation"):
        if file.suffix == ".svg":
            file.unlink()


def pages(root: Path, found: HeldOut) -> dict[Path, str]:
    """What both pages must say."""
    made: tuple[tuple[Path, Callable[[HeldOut], dict[str, str]]], ...] = (
        (root / "docs" / "plan.md", plan_blocks),
        (root / "README.md", readme_blocks),
    )
    return {page: filled(page.read_text(encoding="utf-8"), blocks(found)) for page, blocks in made}


def main(argv: Sequence[str] | None = None) -> int:
    """Write, or compare; 1: something differs."""
    parser = argparse.ArgumentParser(
        prog=name_of("megdet_hvd.plan.page"),
        description="Fit the plan's constants; write the figures of docs/plan.md and README.md.",
    )
    add_version_option(parser)
    parser.add_argument("--check", action="store_true", help="only say what differs")
    check = parser.parse_args(argv).check
    root = checkout()
    if root is None:
        print("error: the pages are in a checkout, and this package is installed", file=sys.stderr)
        return 2
    found = validate()
    constants = DATA / "fitted.json"
    if constants.read_text(encoding="utf-8") != fitted_text(found):
        print(f"{constants}: n₀ and σ are others now")
        if check:
            return 1
        constants.write_text(fitted_text(found), encoding="utf-8")
        shared_constants.cache_clear()
    differ = False
    for page, text in pages(root, found).items():
        if page.read_text(encoding="utf-8") != text:
            differ = True
            print(f"{page}: {'differs' if check else 'written'}")
            if not check:
                page.write_text(text, encoding="utf-8")
    if not check:
        try:
            draw_validation(found, root / "docs")
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 1 if check and differ else 0


if __name__ == "__main__":
    leave(main)
