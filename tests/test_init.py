"""``python -m megdet_hvd.init FOLDER``."""

import errno
import sys
from pathlib import Path

import pytest

from megdet_hvd import init
from megdet_hvd.config.load import load_config
from megdet_hvd.errors import UserError
from megdet_hvd.job_folder import carried

ROOT = Path(__file__).resolve().parent.parent


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = init.main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_lays_out_what_jobs_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my jobs" / "new"
    code, out, err = told(capsys, folder)
    assert (code, err) == (0, "")
    names = {str(file.relative_to(folder)) for file in folder.rglob("*.*") if file.is_file()}
    assert {"configs/coco_256.yaml", "slurm/job.sh", "slurm/site.example.sh"} <= names
    assert {name for name in names if name.startswith("slurm/megdet_")} == {
        str(file.relative_to(ROOT)) for file in ROOT.glob("slurm/megdet_*.sbatch")
    }
    assert "slurm/environment.sbatch" not in names, "it builds a checkout's environment"
    assert (folder / ".venv").samefile(sys.prefix) and f"{folder / '.venv'} ->" in out
    assert f"wrote {folder}: 8 in configs/, 7 in slurm/" in out
    assert f"cd '{folder}'" in out and "--check slurm/megdet_8gpu.sbatch" in out
    monkeypatch.setenv("COCO_ROOT", "/data")
    assert load_config(folder / "configs" / "coco_256.yaml").global_batch == 256

    (folder / "slurm" / "site.sh").write_text("SITE_PARTITION=mine\n")
    (folder / "configs" / "scenes.yaml").unlink()
    code, out, _ = told(capsys, folder)
    assert code == 0 and "wrote" in out.splitlines()[0] and "1 in configs/" in out.splitlines()[0]
    assert "there already, and the same: 7 in configs/, 7 in slurm/" in out
    assert (folder / "slurm" / "site.sh").read_text() == "SITE_PARTITION=mine\n"


def test_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "bccd.yaml").write_text("mine: 1\n")
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "job.sh").symlink_to("/nowhere")
    code, out, err = told(capsys, tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path}: configs/bccd.yaml, slurm/job.sh differ from what")
    assert "nothing was written" in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "bccd.yaml", "configs", "job.sh", "slurm",
    ]  # fmt: skip
    (tmp_path / "file").touch()
    code, _, err = told(capsys, tmp_path / "file")
    assert code == 2 and f"{tmp_path / 'file'} is a file, and has to be a folder" in err


def test_a_disk_that_fills_up_leaves_no_half_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, target: Path) -> None:
        if target.name == "job.sh":
            target.write_bytes(source.read_bytes()[:10])
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(init.shutil, "copyfile", copy)  # type: ignore[attr-defined]
    code, _, err = told(capsys, tmp_path)
    assert code == 2 and "No space left on device" in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.undo()
    assert told(capsys, tmp_path)[0] == 0, "and the next time it goes well"


def test_the_environment_of_the_jobs(tmp_path: Path) -> None:
    env = tmp_path / "env"
    (env / "bin").mkdir(parents=True)
    folder = tmp_path / "jobs"
    folder.mkdir()
    done, notes = init.link_environment(folder, env)
    assert not done and "has no bin/python" in notes[0] and "MEGDET_VENV" in notes[0]
    (env / "bin" / "python").symlink_to(sys.executable)
    done, notes = init.link_environment(folder, env)
    assert (folder / ".venv").readlink() == env and len(done) == 1 and not notes
    assert init.link_environment(folder, env) == ([], []), "it is there"
    done, notes = init.link_environment(folder, tmp_path)
    assert not done and f"no way to {tmp_path}" in notes[0]
    assert (folder / ".venv").readlink() == env, "somebody else's stays"


def test_a_package_without_its_files(tmp_path: Path) -> None:
    assert init.names_in(carried())
    with pytest.raises(UserError, match=f"{tmp_path} has no configurations"):
        init.lay_out(tmp_path, tmp_path / "jobs")
    assert not (tmp_path / "jobs").exists()
