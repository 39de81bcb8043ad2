"""A network card for each local rank, as NCCL and UCX want it named."""

import os
from pathlib import Path

import pytest

from megdet_hvd.cluster.launch import Launch
from megdet_hvd.cluster.network_card import check_count, missing_card, use_network_card
from megdet_hvd.cluster.site import site_from_variables
from megdet_hvd.errors import UserError
from megdet_hvd.job import life

NAMED = {"MEGDET_NETWORK_CARDS": "mlx5_0 mlx5_1:2"}


def rank(local: int | None) -> Launch:
    return Launch("mpi", "srun", 4, 2, local, 2)


def test_each_local_rank_has_its_own() -> None:
    for local, nccl, ucx in ((0, "=mlx5_0", "mlx5_0:1"), (1, "=mlx5_1:2", "mlx5_1:2")):
        environ = dict(NAMED)
        use_network_card(rank(local), environ)
        assert environ == {**NAMED, "NCCL_IB_HCA": nccl, "UCX_NET_DEVICES": ucx}


@pytest.mark.parametrize(
    ("launch", "environ"),
    [(rank(0), {"A": "b"}), (rank(None), NAMED), (rank(2), NAMED), (rank(0), {**NAMED})],
)
def test_what_is_set_stands_and_nothing_is_made_up(launch: Launch, environ: dict[str, str]) -> None:
    if launch == rank(0) and "A" not in environ:
        environ = {**environ, "NCCL_IB_HCA": "mine", "UCX_NET_DEVICES": "all"}
    before = dict(environ)
    use_network_card(launch, environ)
    assert environ == before


def test_one_for_each_process_of_a_node() -> None:
    check_count((), 8)
    check_count(("a", "a", "b", "b"), 4)
    with pytest.raises(UserError, match="names 2 cards for 8 processes on each node"):
        check_count(("a", "b"), 8)


def test_a_card_that_a_machine_has_not(tmp_path: Path) -> None:
    assert missing_card(rank(0), NAMED, tmp_path / "no such folder") is None
    assert "has none; NCCL would go by TCP" in str(missing_card(rank(0), NAMED, tmp_path))
    (tmp_path / "mlx5_1").touch()
    assert missing_card(rank(1), NAMED, tmp_path) is None
    assert missing_card(rank(0), {}, tmp_path) is None
    said = str(missing_card(rank(0), NAMED, tmp_path))
    assert "names mlx5_0 for local rank 0, and this machine has mlx5_1" in said


def test_a_program_has_it_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NCCL and UCX read them once, when they start."""
    for name in ("NCCL_IB_HCA", "UCX_NET_DEVICES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MEGDET_NETWORK_CARDS", "mlx5_7")
    monkeypatch.setattr(life, "read_launch", lambda environ: Launch("single", "x", 1, 0, 0, 1))
    found: list[str] = []

    def configure() -> None:
        found.append(os.environ["NCCL_IB_HCA"])
        raise UserError("enough")

    assert life.run_program(life.Program(configure, lambda plan, life: 0)) == 2
    assert found == ["=mlx5_7"] and "enough" in capsys.readouterr().err


def test_they_are_read_from_the_site_file() -> None:
    site = site_from_variables({"SITE_NETWORK_CARDS": "mlx5_0  mlx5_1:1\tmlx5_2"})
    assert site.network_cards == ("mlx5_0", "mlx5_1:1", "mlx5_2")
    for wrong in ("mlx5_0,mlx5_1", "=mlx5_0", "^mlx5_0", "mlx5_0:x"):
        with pytest.raises(UserError, match="names of cards, one blank between two"):
            site_from_variables({"SITE_NETWORK_CARDS": wrong})
