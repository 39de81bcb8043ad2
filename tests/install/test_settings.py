"""What the user asks for, from environment variables and from the set-up before."""

from pathlib import Path

import pytest

from install.problem import SetupProblem
from install.settings import Settings, read_places, read_settings


def test_defaults() -> None:
    assert read_settings({}, {}, "2.14.1") == Settings("2.14.1", "package", "")


def test_what_is_not_given_stays_as_it_was() -> None:
    remembered = {"torch": "2.11.0", "mpi": "site", "architectures": "80,90"}
    assert read_settings({}, remembered, "2.14.1") == Settings("2.11.0", "site", "80,90")
    given = {"MEGDET_TORCH": "2.9.1", "MEGDET_MPI": "package"}
    assert read_settings(given, remembered, "2.14.1").torch == "2.9.1"
    assert read_settings(given, remembered, "2.14.1").mpi == "package"


def test_default_resets_one() -> None:
    remembered = {"torch": "2.11.0", "architectures": "80"}
    given = {"MEGDET_TORCH": "default", "MEGDET_CUDA_ARCHS": "default"}
    assert read_settings(given, remembered, "2.14.1") == Settings("2.14.1")


@pytest.mark.parametrize("text", ["9.0, 8.0", "90;80", "80,90,80", "8.0,90"])
def test_architectures_have_one_spelling(text: str) -> None:
    assert read_settings({"MEGDET_CUDA_ARCHS": text}, {}, "x").architectures == "80,90"


def test_horovods_own_variable_is_heard() -> None:
    settings = read_settings({"HOROVOD_BUILD_CUDA_CC_LIST": "70"}, {}, "x")
    assert settings.architectures == "70"
    both = {"HOROVOD_BUILD_CUDA_CC_LIST": "70", "MEGDET_CUDA_ARCHS": "120"}
    assert read_settings(both, {}, "x").architectures == "120"


@pytest.mark.parametrize(
    ("name", "value"),
    [("MEGDET_CUDA_ARCHS", "ampere"), ("MEGDET_MPI", "openmpi")],
)
def test_a_wrong_value_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(SetupProblem, match=f"{name}={value}"):
        read_settings({name: value}, {}, "2.14.1")


def test_places_of_a_plain_user() -> None:
    places = read_places({}, Path("/a b/clone"), Path("/home/u"))
    assert places.venv == Path("/a b/clone/.venv")
    assert places.python == Path("/a b/clone/.venv/bin/python")
    assert places.cache == Path("/home/u/.cache/megdet_hvd")
    assert places.uv_cache == Path("/home/u/.cache/uv")
    assert places.archives is None


def test_a_moved_cache_takes_uvs_along_unless_told_otherwise() -> None:
    environ = {"MEGDET_CACHE": "/scratch/it's mine", "MEGDET_VENV": "~/envs/m"}
    places = read_places(environ, Path("/clone"), Path("/home/u"))
    assert places.cache == Path("/scratch/it's mine")
    assert places.uv_cache == Path("/scratch/it's mine/uv")
    assert places.venv == Path("/home/u/envs/m")
    own = read_places({**environ, "UV_CACHE_DIR": "/fast/uv"}, Path("/clone"), Path("/home/u"))
    assert own.uv_cache == Path("/fast/uv")


def test_relative_folders_count_from_the_repository() -> None:
    environ = {"MEGDET_ARCHIVES": "../archives", "XDG_CACHE_HOME": "/xdg"}
    places = read_places(environ, Path("/work tree/clone"), Path("/home/u"))
    assert places.archives == Path("/work tree/archives")
    assert places.cache == Path("/xdg/megdet_hvd")
    assert places.uv_cache == Path("/xdg/uv")
