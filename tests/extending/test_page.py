"""docs/extending.md: its examples are what is trained here."""

from pathlib import Path

from tests.extending.check_page import write_tables
from tests.extending.page import examples, write_examples
from tests.pool import on_ranks


def test_a_block_with_a_file_name_is_an_example() -> None:
    text = (
        "```python\n# a.py\nx = 1\n```\n\n```python\nno file\n```\n\n```yaml\n# b.yaml\nc: 2\n```\n"
    )
    assert examples(text) == {"a.py": "x = 1\n", "b.yaml": "c: 2\n"}


def test_the_examples_train_evaluate_and_resume_to_the_bit(tmp_path: Path) -> None:
    assert len(write_examples(tmp_path)) > 5
    write_tables(tmp_path)
    check = "tests.extending.check_page:named_in_a_file"
    on_ranks(check, 2, tmp_path, launcher="gloo", timeout_s=400)
