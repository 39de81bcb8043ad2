"""What a run is carried on with, before any process starts."""

from megdet_hvd.config.before import Before
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.engine.resumption import Resumption


def test_prepared_data_stays_where_the_batch_is_cut_anew() -> None:
    config = load_config(None, ["global_batch=8"])
    source = AnnotationSource(annotations="/prepared/train.json", images="/prepared/images")
    data = config.data.model_copy(update={"kind": "coco", "train": (source,)})
    # Two machines of 2 ranks before, one of 4 now: bn.size=4 keeps the BN size.
    resumption = Resumption(config, (), Before(8, 4, 1, "cgbn", (4,))).with_data(data)
    found = resumption.refit((range(4),)).config
    assert found.bn.size == 4 and found.data == data
    assert resumption.refit(((0, 1), (2, 3))).config.data == data
    given = Resumption(config, ("bn.size",), Before(8, 4, 1, "cgbn", (4,))).with_data(data)
    assert given.refit(((0, 1, 2, 3),)).config.bn.size is None, "what was given still stands"
