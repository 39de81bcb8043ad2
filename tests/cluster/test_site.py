"""The site file: as variables, and as bash reads it."""

from pathlib import Path

import pytest

from megdet_hvd.cluster.site import Site, find_site_file, read_site, site_from_variables
from megdet_hvd.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def written(folder: Path, text: str) -> Path:
    file = folder / "the site's file.sh"
    file.write_text(text)
    return file


def test_the_example_is_all_defaults() -> None:
    assert read_site(ROOT / "slurm" / "site.example.sh") == Site()


def test_every_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/o'neill")
    file = written(
        tmp_path,
        """
        SITE_PARTITION=gpu,big
        SITE_ACCOUNT=vision
        SITE_QOS=low
        SITE_SBATCH_OPTIONS="--comment='a b' -C a100"
        SITE_LAUNCHER=mpirun
        SITE_SRUN_MPI=pmix_v4
        SITE_CONTAINER="apptainer exec --nv '/images/the image.sif'"
        SITE_DATA_ROOT="$HOME/my coco"
        export SITE_STAGING=/local
        SITE_ENVIRONMENT=$MEGDET_ROOT/x.tar
        SITE_REQUEUE_ON_FAILURE=0
        SITE_BIND=none
        echo words on the screen
        site_setup() { echo run > "$HOME/ran"; exit 7; }
        """,
    )
    assert read_site(file) == Site(
        partition="gpu,big",
        account="vision",
        qos="low",
        sbatch_options=("--comment=a b", "-C", "a100"),
        launcher="mpirun",
        srun_mpi="pmix_v4",
        container=("apptainer", "exec", "--nv", "/images/the image.sif"),
        data_root=Path("/home/o'neill/my coco"),
        staging=Path("/local"),
        environment=tmp_path.parent / "x.tar",
        requeue_on_failure=0,
        bind="none",
    )


def test_all_wrong_entries_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "SITE_PARTITON=gpu\nSITE_LAUNCHER=mpi\nSITE_DATA_ROOT='~/coco'\nSITE_STAGING=local\n"
        'SITE_REQUEUE_ON_FAILURE=-1\nSITE_ENVIRONMENT=/x/.venv\nSITE_CONTAINER="a \'b"\n'
        "SITE_GARDEN=1\nSITE_ACCOUNT='a b'\n",
    )
    with pytest.raises(UserError) as raised:
        read_site(file)
    text = str(raised.value)
    assert text.startswith(f"{file}: 9 entries are wrong\n")
    for said in (
        "SITE_PARTITON: no such entry; nearest: SITE_PARTITION",
        "SITE_LAUNCHER=mpi: must be auto or srun or mpirun or horovodrun; nearest: mpirun",
        "SITE_DATA_ROOT=~/coco: in quotes ~ stays as it is; write $HOME instead",
        "SITE_STAGING=local: must be a whole path",
        "SITE_REQUEUE_ON_FAILURE=-1: must be a whole number ≥ 0",
        "SITE_ENVIRONMENT=/x/.venv: must be an archive",
        "SITE_CONTAINER=a 'b: the quotes in it don't match",
        "SITE_GARDEN: no such entry; nearest: SITE_",
        "SITE_ACCOUNT=a b: must be one word",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SITE_QOS = low\n", ["line 1: SITE_QOS: command not found", 'SITE_QOS="value"']),
        ("SITE_QOS=low\nSITE_ACCOUNT='a\n", ["unexpected EOF"]),
        ("SITE_CONTAINER=(a b)\n", ["SITE_CONTAINER is a bash list"]),
        ("exit 3\n", ["ends the shell that reads it (exit code 3)"]),
        ("\nmodul load cuda\n", ["line 2: modul: command not found"]),
    ],
)
def test_what_the_shell_says(tmp_path: Path, text: str, said: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        read_site(written(tmp_path, text))
    for words in said:
        assert words in str(raised.value)


def test_variables_of_the_job() -> None:
    """A centre's own SITE_ variables are left alone; a slip of the pen is not."""
    found = site_from_variables({"SITE_NAME": "Jupiter", "SITE_QOS": "", "SITE_BIND": "cores"})
    assert found == Site()
    with pytest.raises(UserError, match="SITE_STAGEING: no such entry; nearest: SITE_STAGING"):
        site_from_variables({"SITE_STAGEING": "/local"})


def test_where_the_file_lies(tmp_path: Path) -> None:
    assert find_site_file(tmp_path) is None
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "site.sh").touch()
    assert find_site_file(tmp_path) == tmp_path / "slurm" / "site.sh"
