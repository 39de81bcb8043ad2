"""The folder that a job runs in, from its template, the shell's folder and the variables."""

from pathlib import Path

import pytest

from megdet_hvd.job_folder import MARK, carried, checkout, find_job_folder


def job_folder(path: Path) -> Path:
    (path / MARK).parent.mkdir(parents=True)
    (path / MARK).touch()
    (path / "slurm" / "a.sbatch").touch()
    return path


def test_which_folder_counts(tmp_path: Path) -> None:
    one, two, three = (job_folder(tmp_path / name) for name in ("one", "two", "three"))
    installed = tmp_path / "env" / "site-packages" / "megdet_hvd"
    (one / "runs" / "x").mkdir(parents=True)
    set_ = {"MEGDET_ROOT": str(three)}

    def found(template: str | None, here: Path, environ: dict[str, str] = set_) -> Path | None:
        name = None if template is None else Path(template)
        return find_job_folder(name, here, environ, installed)

    assert found(f"{two}/slurm/a.sbatch", one) == two, "the template's own"
    assert found("../two/slurm/a.sbatch", one) is not None
    assert found("slurm/a.sbatch", one) == one
    assert found("slurm/a.sbatch", one / "runs" / "x") == one, "that of the shell, or above"
    assert found(None, one / "runs") == one
    assert found("slurm/a.sbatch", tmp_path) == three, "MEGDET_ROOT"
    assert found("slurm/a.sbatch", tmp_path, {"MEGDET_ROOT": "two"}) == two
    assert found("slurm/a.sbatch", tmp_path, {}) is None
    assert found(None, tmp_path, {"MEGDET_ROOT": "/nowhere"}) is None
    assert find_job_folder(None, tmp_path, {}, three / "megdet_hvd") == three, "the checkout"


@pytest.mark.parametrize("is_checkout", [True, False])
def test_where_the_packages_own_files_lie(tmp_path: Path, is_checkout: bool) -> None:
    package = tmp_path / "megdet_hvd"
    if is_checkout:
        job_folder(tmp_path)
    assert checkout(package) == (tmp_path if is_checkout else None)
    assert carried(package) == (tmp_path if is_checkout else package / "project")
