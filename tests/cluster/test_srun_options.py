"""A site's own options of srun: what is taken, and what the driver sets itself."""

import pytest

from megdet_hvd.cluster.site import site_from_variables
from megdet_hvd.cluster.srun_options import (
    REFUSED,
    container_image,
    read_srun_options,
    starts_container,
    step_options,
)
from megdet_hvd.errors import UserError

PYXIS = ("--container-image=/images/a b.sqsh", "--container-mounts=/scratch:/scratch")


def test_they_are_read_from_the_site_file() -> None:
    text = "--container-image='/images/a b.sqsh' --container-mounts=/scratch:/scratch"
    site = site_from_variables({"SITE_SRUN_OPTIONS": text})
    assert site.srun_options == PYXIS
    assert site.in_container and site.wanted_launcher == "srun"
    plain = site_from_variables({"SITE_SRUN_OPTIONS": "--network=sn_all"})
    assert not plain.in_container and plain.wanted_launcher == "srun"
    assert site_from_variables({}).wanted_launcher == "auto"


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("form", ["--{}", "--{}=x"])
def test_what_the_driver_sets_is_refused_with_the_reason(name: str, form: str) -> None:
    with pytest.raises(UserError) as raised:
        read_srun_options("SITE_SRUN_OPTIONS", [form.format(name)])
    assert str(raised.value).endswith(f"--{name} can't be set there: {REFUSED[name]}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("--ntask=3", "--ntasks can't be set there"),  # srun takes beginnings
        ("--cpu_bind=none", "--cpu-bind can't be set there"),
        ("-n 3", "-n: options of srun stand there as --name"),
        ("--network sn_all", "sn_all: options of srun stand there as --name=value|sn_all: opt"),
        ("train.py", "train.py: options of srun"),
        ("--", "--: options of srun"),
    ],
)
def test_slips(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        site_from_variables({"SITE_SRUN_OPTIONS": text})


def test_what_does_not_go_with_them() -> None:
    options = {"SITE_SRUN_OPTIONS": "--container-image=x"}
    for launcher in ("mpirun", "horovodrun"):
        with pytest.raises(UserError, match=f"nothing takes them with SITE_LAUNCHER={launcher}"):
            site_from_variables({**options, "SITE_LAUNCHER": launcher})
    with pytest.raises(UserError, match="the ranks run in one of them"):
        site_from_variables({**options, "SITE_CONTAINER": "apptainer exec x.sif"})


def test_ranks_in_a_container_start_in_the_projects_folder() -> None:
    assert step_options(PYXIS, "/my project") == [*PYXIS, "--container-workdir=/my project"]
    own = (*PYXIS, "--container-workdir=/mine")
    assert step_options(own, "/my project") == list(own)
    assert step_options(("--network=x",), "/my project") == ["--network=x"]
    assert container_image(PYXIS) == "/images/a b.sqsh" and container_image(()) is None
    twice = ("--container-image=a", "--container-image=b")
    assert container_image(twice) == "b", "srun takes the last"
    assert starts_container(["--container=/bundle"]) and not starts_container(["--network=x"])
