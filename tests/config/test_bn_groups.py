import pytest

from megdet_hvd.config.bn_groups import bn_groups, possible_sizes
from megdet_hvd.errors import UserError

TWO = [[0, 1, 2, 3], [4, 5, 6, 7]]
MIXED = [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("scope", "size", "images", "machines", "groups", "per_group", "split"),
    [
        ("machine", None, 2, TWO, ((0, 1, 2, 3), (4, 5, 6, 7)), (8, 8), None),
        ("world", None, 2, TWO, ((0, 1, 2, 3, 4, 5, 6, 7),), (16,), None),
        ("process", None, 2, [[0, 1]], ((0,), (1,)), (2, 2), None),
        ("machine", 4, 2, TWO, ((0, 1), (2, 3), (4, 5), (6, 7)), (4,) * 4, None),
        ("machine", 8, 2, TWO, ((0, 1, 2, 3), (4, 5, 6, 7)), (8, 8), None),
        ("world", 16, 2, TWO, ((0, 1, 2, 3, 4, 5, 6, 7),), (16,), None),
        ("machine", 2, 2, [[0, 1]], ((0,), (1,)), (2, 2), None),
        ("machine", 2, 8, [[0, 1]], ((0,), (1,)), (2, 2), 2),
        ("process", 1, 2, [[0]], ((0,),), (1,), 1),
        # Interleaved machines: groups stay inside them where they can.
        ("machine", None, 2, MIXED, ((0, 2), (1, 3)), (4, 4), None),
        ("world", 4, 2, MIXED, ((0, 2), (1, 3)), (4, 4), None),
        # 2 × 8 = 16 images a machine, the paper's best of 32 over two machines.
        (
            "world",
            32,
            2,
            [range(8 * m, 8 * m + 8) for m in range(4)],
            (tuple(range(16)), tuple(range(16, 32))),
            (32, 32),
            None,
        ),
        # Uneven machines.
        ("machine", None, 3, [[0], [1, 2]], ((0,), (1, 2)), (3, 6), None),
    ],
)
def test_groups(scope, size, images, machines, groups, per_group, split) -> None:  # type: ignore[no-untyped-def]
    found = bn_groups(scope, size, images, machines)
    assert (found.groups, found.images, found.split) == (groups, per_group, split)


@pytest.mark.parametrize(
    ("scope", "size", "images", "machines", "words"),
    [
        ("machine", 32, 2, TWO, "sizes that can: 1, 2, 4, 8"),
        ("machine", 16, 2, TWO, "bn.scope=world can"),
        ("machine", 3, 2, TWO, "2 images each"),
        ("machine", 3, 4, [[0]], "sizes that can: 1, 2, 4"),
        ("process", 8, 2, TWO, "a wider bn.scope"),
        ("machine", 4, 2, [[0], [1, 2]], "sizes that can: 1, 2"),
    ],
)
def test_a_size_that_cannot_be_made_says_which_can(scope, size, images, machines, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=f"bn.size={size} can't be made") as caught:
        bn_groups(scope, size, images, machines)
    assert words in str(caught.value)


def test_every_possible_size_can_be_made() -> None:
    for images in range(1, 7):
        for processes in (1, 2, 3, 4, 6):
            machines = [range(processes), range(processes, 2 * processes)]
            for size in possible_sizes(images, [processes, processes]):
                found = bn_groups("machine", size, images, machines)
                assert set(found.images) == {size}
                assert sorted(r for g in found.groups for r in g) == list(range(2 * processes))
