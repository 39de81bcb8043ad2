import pytest

from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job.agree import agree, error_record, is_agreed, raise_first, together
from megdet_hvd.job.world import World, machines_of

ALONE = World(rank=0, size=1, machines=((0,),))


def test_machines_in_order_of_their_first_rank_whatever_the_placement() -> None:
    assert machines_of(["a", "a", "b", "b"]) == ((0, 1), (2, 3))
    assert machines_of(["b", "a", "b", "a", "c"]) == ((0, 2), (1, 3), (4,))


def test_a_process_knows_its_machine_and_place_on_it() -> None:
    world = World(rank=3, size=5, machines=((0, 2), (1, 3), (4,)))
    assert (world.machine, world.local_rank, world.local_size) == (1, 1, 2)
    assert world.local_ranks == (1, 3) and not world.is_main


def test_an_agreed_error_is_known_as_such() -> None:
    agree(None, ALONE, "nothing")
    with pytest.raises(UserError, match="no such thing") as caught, together(ALONE, "block"):
        raise UserError("no such thing")
    assert is_agreed(caught.value)
    assert not is_agreed(UserError("of one rank"))


def test_the_class_of_an_error_survives_and_storage_comes_first() -> None:
    bad, failing = error_record(UserError("bad")), error_record(StorageError("stale"))
    for found, kind, text in (
        ([bad, bad], UserError, "bad"),
        ([failing, failing], StorageError, "stale"),
        ([None, bad], UserError, "rank 1: bad"),
        ([None, failing, None], StorageError, "rank 1: stale"),
        ([bad, failing], StorageError, "rank 1: stale"),
    ):
        with pytest.raises(kind) as caught:
            raise_first(found)
        assert str(caught.value) == text and is_agreed(caught.value), found
    raise_first([None, None])
    with pytest.raises(StorageError, match="a file: Stale") as caught, together(ALONE, "block"):
        raise OSError(116, "Stale file handle")
    assert is_agreed(caught.value)
    with pytest.raises(FileNotFoundError), together(ALONE, "block"):
        raise FileNotFoundError(2, "a fault of ours")
