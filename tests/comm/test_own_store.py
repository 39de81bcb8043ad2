from megdet_hvd.comm.own_store import slots, wants_gloo


def test_slots_of_uneven_machines() -> None:
    """As horovodrun -H a:3,b:1 numbers them, ranks in any order."""
    found = slots(((0, 2, 3), (1,)))
    assert [(s.rank, s.local_rank, s.local_size) for s in found] == [
        (0, 0, 3),
        (1, 0, 1),
        (2, 1, 3),
        (3, 2, 3),
    ]
    assert [(s.cross_rank, s.cross_size) for s in found] == [(0, 2), (1, 2), (0, 1), (0, 1)]
    assert [s.hostname for s in found] == ["machine0", "machine1", "machine0", "machine0"]
    assert found[1].variables()["HOROVOD_SIZE"] == "4"


def test_gloo_is_asked_for_by_either_variable() -> None:
    assert wants_gloo({"HOROVOD_CPU_OPERATIONS": "GLOO"})
    assert wants_gloo({"HOROVOD_CONTROLLER": "gloo"})
    assert not wants_gloo({"HOROVOD_CPU_OPERATIONS": "MPI"}) and not wants_gloo({})
