"""A prepared set's index is whole, or it is none."""

from pathlib import Path

from megdet_hvd.pipeline.index import INDEX, Entry, Index, read_index, source_of, write_index


def test_what_is_read_is_what_was_written_or_nothing(tmp_path: Path) -> None:
    entries = [Entry(9, 8, 7, 6, 5, 4, "1.png", 3, "0-4095"), None, Entry(9, 8, 7, 6, 7, 6)]
    names = ["a/b c.png", "\ud800.png", "é"]
    index = Index(tmp_path / "a.json", tmp_path / "pictures", names, entries)
    assert read_index(tmp_path) is None and source_of(tmp_path) is None
    write_index(tmp_path, index)
    assert read_index(tmp_path) == index
    file = tmp_path / INDEX
    text = file.read_text()
    lines = text.splitlines(keepends=True)
    for kept in range(len(lines)):  # a copy of the folder that stopped half-way
        file.write_text("".join(lines[:kept]))
        assert read_index(tmp_path) is None
        assert source_of(tmp_path) == ((index.annotations, index.images) if kept else None)
    for other in (text.replace('"version": 2', '"version": 1'), text[:-5]):
        file.write_text(other)
        assert other != text and read_index(tmp_path) is None
