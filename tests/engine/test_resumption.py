"""What a run is carried on with, before any process starts."""

from pathlib import Path

import pytest

from megdet_hvd.config.load import load_config
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.engine import resumption as module
from megdet_hvd.engine.resumption import Resumption, filed, resumption_of


def test_a_batch_is_cut_anew_unless_it_was_given() -> None:
    config = load_config(None, ["global_batch=8"])
    # Two machines of 2 ranks before, one of 4 now: bn.size=4 keeps the BN size.
    resumption = Resumption(config, (), SavedLayout(8, 4, 1, "cgbn", (4,)))
    assert resumption.elastic_resume((range(4),)).config.bn.size == 4
    given = Resumption(config, ("bn.size",), SavedLayout(8, 4, 1, "cgbn", (4,)))
    assert given.elastic_resume(((0, 1, 2, 3),)).config.bn.size is None, (
        "what was given still stands"
    )


def test_an_edited_file_is_a_wish_and_what_a_refit_changed_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = load_config(None, ["global_batch=8"])
    # The elastic resume of an earlier resume cut the batch in two passes; the file never said so.
    before = SavedLayout(8, 2, 2, "cgbn", (4,), filed=filed(written))
    monkeypatch.setattr(module, "read_saved_layout", lambda _: before)
    kept = resumption_of(tmp_path, written, written, ())
    assert kept.elastic_resume(((0, 1),)).config.bn.size is None, "4 = 2 processes of 2 images"
    edited = load_config(None, ["global_batch=8", "bn.size=2"])
    assert resumption_of(tmp_path, edited, edited, ()).elastic_resume(((0, 1),)).config.bn.size == 2
