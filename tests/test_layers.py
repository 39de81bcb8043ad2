"""Imports point one way, and what needs no torch imports none.

Every import of the package is read from its source, those inside functions too.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "megdet_hvd"

LEVELS: tuple[tuple[str, ...], ...] = (
    (
        "megdet_hvd",
        "errors",
        "draws",
        "image_rows",
        "command",
        "grouping",
        "moved",
        "wording",
        "collector",
    ),
    ("storage", "serialize", "torch_file", "version", "scripts", "job_folder", "scontrol"),
    ("run_lock", "cuda"),
    ("schedule",),
    ("config", "cluster", "staging"),
    ("comm",),
    ("job",),
    ("data",),
    ("bn", "model", "checkpoint"),
    ("memory",),
    ("evaluation", "report"),
    ("preflight",),
    ("engine.step", "engine.run_folder"),
    ("engine", "cli"),
    (
        "train",
        "evaluate",
        "predict",
        "placement",
        "doctor",
        "init",
        "data.__main__",
        "slurm_job",
    ),
    ("preflight.__main__", "submit", "pipeline", "bench"),
    ("plan",),
    ("lab",),
)
"""Lowest first. A part may import itself and lower levels, never its neighbours."""

NO_TORCH = (
    "megdet_hvd",
    "errors",
    "command",
    "version",
    "scripts",
    "job_folder",
    "collector",
    "grouping",
    "moved",
    "wording",
    "init",
    "storage",
    "scontrol",
    "run_lock",
    "draws",
    "schedule",
    "config",
    "cluster",
    "staging",
    "cli",
    "placement",
    "slurm_job",
    "submit",
    "plan",
)
"""Parts that answer on a login node."""

NO_TORCH_MODULES = (
    "checkpoint",
    "checkpoint.atomic",
    "checkpoint.facts",
    "checkpoint.naming",
    "checkpoint.recovery",
    "checkpoint.retention",
    "checkpoint.zip_check",
    "cuda",
    "cuda.driver",
    "cuda.error",
    "cuda.nvrtc",
    "job",
    "job.outcome_notes",
    "engine",
    "data",
    "data.worker_count",
    "data.workers",
    "engine.early",
    "engine.resumption",
    "engine.run_folder",
    "engine.run_folder.folder",
)
"""Modules of other parts that do, too."""

HEAVY = ("torch", "torchvision", "horovod", "mpi4py", "numpy", "pycocotools")

PARTS = tuple(part for level in LEVELS for part in level)
"""With a dot: a program beside the part that it is named after, or a part within a part."""

ONLY_FROM_DATA = {"model": ("data.batch",), "bn": (), "checkpoint": ()}
"""Of the data part, its neighbours' one contract: the batch."""


def modules() -> list[tuple[str, Path]]:
    """Dotted names below the package, and their files."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append((name or "megdet_hvd", file))
    return found


def imports(name: str, file: Path) -> list[tuple[int, str]]:
    """Line and full dotted name of everything imported, relative imports resolved."""
    found = []
    package = ["megdet_hvd", *(name.split(".") if name != "megdet_hvd" else [])]
    if file.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{source}.{alias.name}") for alias in node.names]
    return found


def part_of(name: str) -> str:
    """The longest of :data:`PARTS` that a dotted name begins with; else its first word."""
    words = name.split(".")
    heads = (".".join(words[:count]) for count in range(len(words), 0, -1))
    return next((head for head in heads if head in PARTS), words[0])


def needs_no_torch(name: str) -> bool:
    return part_of(name) in NO_TORCH or name in NO_TORCH_MODULES


def level_of(name: str) -> int:
    for level, parts in enumerate(LEVELS):
        if part_of(name) in parts:
            return level
    raise AssertionError(f"megdet_hvd.{name} belongs to no level: add it to LEVELS")


def imported_module(target: str) -> str | None:
    """The module below the package that a dotted name lies in; None for other packages."""
    if target.split(".")[0] != "megdet_hvd":
        return None
    parts = target.split(".")[1:]
    while parts:
        path = PACKAGE.joinpath(*parts)
        if path.with_suffix(".py").exists() or path.is_dir():
            return ".".join(parts)
        parts.pop()
    return "megdet_hvd"


def broken_rules(name: str, found: list[tuple[int, str]]) -> list[str]:
    broken = []
    for line, target in found:
        module = imported_module(target)
        if module is None:
            if needs_no_torch(name) and target.split(".")[0] in HEAVY:
                broken.append(f"{name}:{line} imports {target}, and must do without")
            continue
        mine, theirs = part_of(name), part_of(module)
        if mine != theirs and level_of(module) >= level_of(name):
            broken.append(f"{name}:{line} imports {module}, which is not below it")
        if theirs == "data" and mine in ONLY_FROM_DATA and module not in ONLY_FROM_DATA[mine]:
            broken.append(f"{name}:{line} imports {module}; of data it may know data.batch at most")
    return broken


def test_imports_point_one_way() -> None:
    broken = [rule for name, file in modules() for rule in broken_rules(name, imports(name, file))]
    assert broken == []


def test_every_module_has_a_level() -> None:
    names = [name for name, _ in modules()]
    assert {"schedule.policy", "config.load", "data.batch"} <= set(names)
    assert all(level_of(name) >= 0 for name in names)


@pytest.mark.parametrize(
    ("name", "target", "broken"),
    [
        ("config.load", "megdet_hvd.errors.UserError", 0),
        ("config.derive", "megdet_hvd.schedule.policy.NORMAL", 0),
        ("schedule.policy", "megdet_hvd.config.schema.Config", 1),
        ("config.load", "torch.nn", 1),
        ("schedule.policy", "numpy", 1),
        ("config.load", "yaml", 0),
        ("checkpoint.facts", "torch", 1),
        ("checkpoint.file", "torch", 0),
        ("model.detector", "torch", 0),
        ("model.detector", "megdet_hvd.bn.something", 1),
        ("model.detector", "megdet_hvd.data.batch.Batch", 0),
        ("model.detector", "megdet_hvd.data.__init__", 1),
        ("bn.layer", "megdet_hvd.comm", 0),
        ("bn.layer", "megdet_hvd.data.batch.Batch", 1),
        ("comm.session", "megdet_hvd.bn", 1),
        ("evaluation.predictor", "megdet_hvd.report", 1),
        ("engine.step.loop", "megdet_hvd.evaluation", 0),
        ("engine.step.loop", "megdet_hvd.engine.run", 1),
        ("engine.run", "megdet_hvd.engine.step.loop", 0),
        ("evaluation.predictor", "megdet_hvd.engine", 1),
        ("data.__main__", "megdet_hvd.report", 0),
        ("data.batch", "megdet_hvd.cli", 1),
        ("train", "megdet_hvd.cli", 0),
        ("cli", "megdet_hvd.config.keys", 0),
        ("config.load", "megdet_hvd.cli", 1),
    ],
)
def test_the_rule_itself(name: str, target: str, broken: int) -> None:
    assert len(broken_rules(name, [(1, target)])) == broken


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    file = tmp_path / "layer.py"
    file.write_text(
        "from ..engine.step import loop\nfrom . import x\ndef f():\n    import torch.nn\n"
    )
    assert imports("bn.layer", file) == [
        (1, "megdet_hvd.engine.step.loop"),
        (2, "megdet_hvd.bn.x"),
        (4, "torch.nn"),
    ]


def test_login_node_parts_pull_in_nothing_heavy() -> None:
    """Imports of imports count too, so this looks at what Python has loaded in the end."""
    names = [name for name, _ in modules() if needs_no_torch(name)]
    statements = "\n".join(
        "import megdet_hvd" if name == "megdet_hvd" else f"import megdet_hvd.{name}"
        for name in names
    )
    program = (
        f"import sys\n{statements}\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], len(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(names) > 10
    assert done.stdout.startswith("[] ")
