from pathlib import Path

from tests.pool import on_ranks


def test_training_is_the_same_from_what_is_kept_of_annotation_files(tmp_path: Path) -> None:
    """And one rank of the machine has read them, once."""
    on_ranks("tests.engine.check_index_cache:same_training", 2, tmp_path, timeout_s=400)
