"""Parts that differ between ranks are told before training, and no rank hangs."""

from pathlib import Path

from tests.pool import on_ranks

OTHERS = "on rank 1 of 2 they are other ones than on rank 0, or stand in another order"


def test_parts_that_are_not_the_same_on_all_ranks(tmp_path: Path) -> None:
    check = "tests.extending.check_alike:what_differs"
    done = on_ranks(check, 2, tmp_path, launcher="gloo", timeout_s=120)
    assert done.values[0] == done.values[1]
    *differing, unsavable = done.values[0]
    found = [text.removesuffix(f": {OTHERS}") for text in differing]
    where = [text.rpartition(", ")[2] for text in found]
    assert where == ["validation pictures", "its losses", "its weights", "its weights"]
    assert found[3] == "learning.optimizer=tests.extending.check_alike:turned, its weights"
    assert all(OTHERS in text for text in differing)
    assert "counting could not be saved in a checkpoint" in unsavable and "float64" in unsavable
