"""A built library finds its neighbours in whatever environment it is put."""

from pathlib import PurePosixPath

from install.runpath import relative_runpath

ENVIRONMENT = PurePosixPath("/cache/build/some key/env")
LIBRARY = PurePosixPath("lib/python3.11/site-packages/horovod/torch")


def test_folders_of_the_builds_environment_become_relative() -> None:
    site = f"{ENVIRONMENT}/lib/python3.11/site-packages"
    runpath = f"{ENVIRONMENT}/lib:{site}/nvidia/nccl/lib:{site}/torch/lib:{ENVIRONMENT}/bin/../lib"
    assert relative_runpath(runpath, ENVIRONMENT, LIBRARY) == (
        "$ORIGIN/../../../..:$ORIGIN/../../nvidia/nccl/lib:$ORIGIN/../../torch/lib"
    )


def test_the_relative_folder_is_the_right_one() -> None:
    new = relative_runpath(f"{ENVIRONMENT}/lib", ENVIRONMENT, LIBRARY)
    elsewhere = PurePosixPath("/home/u/.venv")
    steps = new.removeprefix("$ORIGIN/").count("..")
    assert (elsewhere / LIBRARY).parents[steps - 1] == elsewhere / "lib"


def test_a_sites_folders_stay() -> None:
    runpath = f"/opt/site mpi/lib:{ENVIRONMENT}/lib::/opt/site mpi/lib"
    expected = "/opt/site mpi/lib:$ORIGIN/../../../.."
    assert relative_runpath(runpath, ENVIRONMENT, LIBRARY) == expected
