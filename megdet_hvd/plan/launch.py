"""A row handed to the Slurm template of its size, through ``python -m megdet_hvd.submit``."""

from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.errors import UserError
from megdet_hvd.plan.prediction import Prediction
from megdet_hvd.plan.question import CORES_PER_GPU, TEMPLATES_GPUS


def submit_words(
    row: Prediction,
    root: Path,
    config: Path | None,
    overrides: Sequence[str],
    *,
    cores_per_gpu: int = CORES_PER_GPU,
) -> list[str]:
    """What to give ``megdet_hvd.submit``: options of sbatch, the template, and training's words.

    A size without a template of its own takes the next larger one's, with ``--nodes``.

    Args:
        row: the choice; whole machines.
        root: the folder of jobs, with slurm/.
        config: the configuration file; None: the template's own.
        overrides: settings from the command line.
        cores_per_gpu: the templates' own number needs no option.

    Raises:
        UserError: machines are partly used, or there are more GPUs than the largest template's.
    """
    if len(set(row.machine_sizes)) > 1:
        raise UserError(
            f"--launch: {row.gpus} GPUs are machines of "
            f"{' and '.join(map(str, sorted(set(row.machine_sizes))))}, and a template's are all "
            "alike: take whole machines"
        )
    size = next((gpus for gpus in TEMPLATES_GPUS if gpus >= row.gpus), None)
    if size is None:
        raise UserError(
            f"--launch: {row.gpus} GPUs, and the largest template is for {TEMPLATES_GPUS[-1]}: "
            f"submit it yourself with --nodes={len(row.machine_sizes)} before the template"
        )
    nodes, each = len(row.machine_sizes), row.machine_sizes[0]
    options = []
    if size != row.gpus or each != 8:
        options.append(f"--nodes={nodes}")
    if each != 8:
        options += [f"--ntasks-per-node={each}", f"--gpus-per-node={each}"]
    if cores_per_gpu != CORES_PER_GPU:
        options.append(f"--cpus-per-task={cores_per_gpu}")
    words = [] if config is None else ["--config", str(config)]
    words += [word for word in overrides if not word.startswith("global_batch=")]
    words.append(f"global_batch={row.batch}")
    return [*options, str(root / "slurm" / f"megdet_{size}gpu.sbatch"), *words]
