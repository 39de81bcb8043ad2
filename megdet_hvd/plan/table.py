"""The plan as a table, in the paper's order, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import Any

from megdet_hvd.plan.advice import advice
from megdet_hvd.plan.prediction import Prediction, Refused, shared_constants
from megdet_hvd.plan.question import Question
from megdet_hvd.plan.sourced import Sourced
from megdet_hvd.wording import counted

RUN_HEADS = (
    ("batch", ""),
    ("GPUs", ""),
    ("images", "a GPU"),
    ("BN", "size"),
    ("peak", "rate"),
    ("warm-up", ""),
    ("iterations", ""),
    ("step", "ms"),
    ("hours", ""),
    ("memory", "GiB"),
    ("efficiency", ""),
    ("node-hours", ""),
)
"""As in the paper, and what a run costs; the second line has units."""
STEP_HEADS = (
    ("GPUs", ""),
    ("compute", ""),
    ("CGBN work", ""),
    ("BN messages", ""),
    ("gradients", ""),
    ("stragglers", ""),
    ("data", ""),
    ("step", ""),
)
"""Parts of a step, ms."""


def table_lines(question: Question, rows: Sequence[Prediction | Refused]) -> list[str]:
    """What it rests on, the two tables, and the warnings."""
    kept = [row for row in rows if isinstance(row, Prediction)]
    return [
        *head_lines(question),
        "",
        *_aligned(RUN_HEADS, [_run_cells(row) for row in rows]),
        "",
        "a step, ms:",
        *(line for line in _aligned(STEP_HEADS, [_step_cells(row) for row in kept]) if line),
        "",
        *_notes(question, rows),
    ]


def _aligned(heads: Sequence[tuple[str, str]], cells: Sequence[Sequence[str]]) -> list[str]:
    """Two lines of heads, and one for each row; columns to the right."""
    table = [[head for head, _ in heads], [unit for _, unit in heads], *cells]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def head_lines(question: Question) -> list[str]:
    """What was asked, and on what the answer rests."""
    profile, network = question.profile, question.network
    origins = sorted({step.seconds.origin for step in profile.steps})
    lines = [
        "All times are predicted: docs/plan.md has the equations, and how far they are from "
        "published runs.",
        f"GPU {profile.name} (step times {', '.join(origins)}): {profile.about}",
        f"network {network.name}: {network.about}, {network.gb_s:.1f} GB/s a machine; "
        f"{question.gpus_per_machine} GPUs and {question.gpus_per_machine * question.cores_per_gpu}"
        f" cores a machine; {question.train_images} training and {question.val_images} validation "
        "pictures",
    ]
    if question.images_per_gpu is not None:
        lines.append(
            f"the batch follows the GPUs, {counted(question.images_per_gpu, 'image')} each"
            f"{_passes(question.config.learning.accumulation)}; "
            "global_batch=N keeps a batch"
        )
    return lines


def _passes(accumulation: int) -> str:
    return "" if accumulation == 1 else f" in each of {accumulation} passes"


def _run_cells(row: Prediction | Refused) -> list[str]:
    if isinstance(row, Refused):
        return ["–", str(row.gpus), *["–"] * (len(RUN_HEADS) - 2)]
    sizes = sorted(set(row.derived.bn_images))
    return [
        str(row.batch),
        str(row.gpus),
        str(row.images),
        "/".join(map(str, sizes)) or "–",
        f"{row.derived.peak_rate:g}",
        str(row.derived.warmup_iterations),
        str(row.derived.end_iteration),
        f"{1e3 * row.step.total:.1f}",
        _hours(row.hours),
        f"{row.memory.gib:.1f}" + ("" if row.fits else "!"),
        f"{row.efficiency:.0%}",
        f"{row.node_hours:.1f}",
    ]


def _hours(hours: float) -> str:
    """A run of minutes is not 0.00."""
    return f"{hours:.2f}" if hours >= 0.1 else f"{hours:.2g}"


def _step_cells(row: Prediction) -> list[str]:
    parts = *astuple(row.step), row.step.total
    return [str(row.gpus), *(f"{1e3 * part:.1f}" for part in parts)]


def _notes(question: Question, rows: Sequence[Prediction | Refused]) -> list[str]:
    """Each warning once, with the GPUs that it is for."""
    lines: dict[str, list[int]] = {}
    for row in rows:
        found = [row.reason] if isinstance(row, Refused) else advice(question, row)
        for text in found:
            lines.setdefault(text, []).append(row.gpus)
    return [
        f"{', '.join(map(str, gpus))} GPU{'s' if gpus != [1] else ''}: {text}"
        for text, gpus in lines.items()
    ]


def as_json(question: Question, rows: Sequence[Prediction | Refused]) -> dict[str, Any]:
    """All that the table says, in seconds and bytes, with every input's source."""
    shared = shared_constants()
    return {
        "origin": "predicted",
        "gpu": question.profile.name,
        "network": question.network.name,
        "images_per_epoch": question.train_images,
        "validation_images": question.val_images,
        "classes": question.classes,
        "sources": sources(question),
        "shared": {"overhead_images": shared.overhead_images, "spread": shared.spread},
        "rows": [_row(question, row) for row in rows],
    }


def _row(question: Question, row: Prediction | Refused) -> dict[str, Any]:
    if isinstance(row, Refused):
        return {"gpus": row.gpus, "refused": row.reason}
    derived = row.derived
    return {
        **step_json(row),
        "peak_rate": derived.peak_rate,
        "warmup_iterations": derived.warmup_iterations,
        "iterations": derived.end_iteration,
        "evaluations": row.evaluations,
        "evaluation_s": row.evaluation_s,
        "hours": row.hours,
        "node_hours": row.node_hours,
        "efficiency": row.efficiency,
        "warnings": advice(question, row),
    }


def step_json(row: Prediction) -> dict[str, Any]:
    """What is the same for any number of pictures."""
    return {
        "gpus": row.gpus,
        "machines": len(row.machine_sizes),
        "batch": row.batch,
        "images_per_gpu": row.images,
        "bn_images": sorted(set(row.derived.bn_images)),
        "step_s": row.step.total,
        "parts_s": asdict(row.step),
        "images_per_s": row.images_per_s,
        "memory_gib": row.memory.gib,
        "recomputation": row.memory.mode,
        "fits": row.fits,
    }


def sources(question: Question) -> dict[str, dict[str, Any]]:
    """Every number of the profile and the network, with where it is from."""
    profile, network = question.profile, question.network
    named: dict[str, Sourced] = {
        "memory_gib": profile.memory_gib,
        "memory_gb_s": profile.memory_gb_s,
        "inside_gb_s": profile.inside_gb_s,
        "model_factor": profile.model_factor,
        "inference_s": profile.inference_s,
    }
    for step in profile.steps:
        named[f"step_s at {step.images} images on {step.gpus} GPUs"] = step.seconds
    for name, sourced in zip(("gbit_s", "share", "hops"), network.sources, strict=True):
        named[f"network {name}"] = sourced
    return {
        name: {"value": entry.value, entry.origin: entry.source} for name, entry in named.items()
    }
