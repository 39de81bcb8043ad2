"""YAML and the command line into a checked configuration, and every way that can go wrong."""

from pathlib import Path

import pytest

from megdet_hvd.config.load import (
    config_from_dict,
    config_to_dict,
    load_config,
    override,
)
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def message(file: Path | None, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_config(file, overrides)
    return str(error.value)


def test_the_embedded_default_is_small_rendered_scenes() -> None:
    found = load_config(None, [])
    assert found.data.kind == "scenes"
    assert found.global_batch == 8
    assert found.model.backbone == "resnet18"
    assert found.model.norm == "cgbn"
    assert found.data.min_sizes == (128,)


def test_a_file_is_read_over_the_schema(tmp_path: Path) -> None:
    file = write(tmp_path, "global_batch: 32\nmodel:\n  roi: {width: 512}\n")
    found = load_config(file, ["model.roi.boxes_per_image=128"])
    assert found.global_batch == 32
    assert found.model.roi.width == 512
    assert found.model.roi.boxes_per_image == 128
    assert found.model.backbone == "resnet50"
    assert found.model.roi.head == Config().model.roi.head


@pytest.mark.parametrize(
    ("text", "section", "field", "value"),
    [
        ("learning.base_rate=1e-4", "learning", "base_rate", 0.0001),
        ("learning.base_rate=.5", "learning", "base_rate", 0.5),
        ("learning.weight_decay=0", "learning", "weight_decay", 0.0),
        ("model.fpn_norm=none", "model", "fpn_norm", "none"),
        ("bn.scope=machine", "bn", "scope", "machine"),
        ("data.min_sizes=[640,800]", "data", "min_sizes", (640, 800)),
        ("model.norm_momentum=null", "model", "norm_momentum", None),
        ("model.norm_momentum=~", "model", "norm_momentum", None),
        ("model.backbone_weights=None", "model", "backbone_weights", None),
        ("model.backbone_weights=IMAGENET1K_V1", "model", "backbone_weights", "IMAGENET1K_V1"),
        ("model.init_from=a: b #c", "model", "init_from", "a: b #c"),
        ("learning.gradient_clip=35", "learning", "gradient_clip", 35.0),
        ("learning.decay_bn=false", "learning", "decay_bn", False),
        ("learning.warmup_iterations=auto", "learning", "warmup_iterations", "auto"),
        ("data.workers=0", "data", "workers", 0),
        ("model.anchor_ratios.1=7", "model", "anchor_ratios", (0.5, 7.0, 2.0)),
    ],
)
def test_overrides_are_yaml_values(text: str, section: str, field: str, value: object) -> None:
    found = getattr(getattr(load_config(None, [text]), section), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name=007", "007"),
        ("name=2026-01-01", "2026-01-01"),
        ("name=~/x=y", "~/x=y"),
        ("name=no", "no"),
        ('name="quoted"', "quoted"),
        ("name='null'", "null"),
        ("name=1e5", "1e5"),
    ],
)
def test_free_text_needs_no_quotes(text: str, name: str) -> None:
    found = load_config(None, [text])
    assert found.name == name
    assert config_from_dict(config_to_dict(found)).name == name


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/../../x", ".."])
def test_a_run_stays_in_its_output_folder(name: str) -> None:
    with pytest.raises(UserError, match=r"leads out of the folder output=runs.*--run FOLDER"):
        load_config(None, [f"name={name}"])
    assert load_config(None, ["name=a/b..c"]).name == "a/b..c"


def test_groups_merge_and_later_overrides_win() -> None:
    found = load_config(None, ["model={norm: bn, roi: {width: 99}}", "seed=1", "seed=2"])
    assert (found.model.norm, found.model.roi.width, found.seed) == ("bn", 99, 2)
    assert found.model.backbone == "resnet18"


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "data:\n  kind: coco\n  train:\n    - {annotations: a, images: b}\n"
        "    - {annotations: c, images: d}\n",
    )
    found = load_config(file, ["data.train.1.images=elsewhere"])
    assert [(s.annotations, s.images) for s in found.data.train] == [("a", "b"), ("c", "elsewhere")]
    assert message(file, "data.train.2.images=x") == (
        "data.train.2: data.train has 2 entries, numbered from 0; "
        "give the whole list: data.train=[…]"
    )


def test_yaml_words_mean_what_they_look_like(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "learning: {base_rate: 2e-2, momentum: 9.0e-1}\nname: on\noutput: 1:30\n"
        "model: {norm: none, norm_momentum: null}\ndata: {keep_empty: true}\n",
    )
    found = load_config(file)
    assert (found.learning.base_rate, found.learning.momentum) == (0.02, 0.9)
    assert (found.name, found.output, found.model.norm) == ("on", "1:30", "none")
    assert found.model.norm_momentum is None
    assert found.data.keep_empty is True


def test_override_of_a_configuration() -> None:
    old = load_config(None, ["seed=3"])
    new = override(old, ["learning.max_iterations=5"])
    assert (new.seed, new.learning.max_iterations) == (3, 5)
    assert old.learning.max_iterations is None
    with pytest.raises(UserError, match="the command line: 1 setting is wrong\n  seed=-1: must"):
        override(old, ["seed=-1"])


# Bases


def test_base_files_merge_group_by_group(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "global_batch: 4\nmodel: {fpn_channels: 32, anchor_ratios: [1, 2]}\n", "a.yaml")
    write(tmp_path, "base: ../a.yaml\nmodel: {anchor_ratios: [3]}\nseed: 5\n", "sub/b.yaml")
    file = write(tmp_path, "base: sub/b.yaml\nseed: 6\n")
    found = load_config(file)
    assert (found.global_batch, found.seed, found.model.fpn_channels) == (4, 6, 32)
    assert found.model.anchor_ratios == (3.0,)
    assert "base" not in config_to_dict(found)


def test_bases_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path, "base: run.yaml\n", "other.yaml")
    file = write(tmp_path, "base: other.yaml\n")
    assert message(file) == (
        f"{tmp_path}/other.yaml: the bases go round in a circle "
        "(run.yaml → other.yaml → run.yaml); take one out"
    )


def test_base_that_is_missing_or_no_name(tmp_path: Path) -> None:
    assert "gone.yaml: no such configuration file" in message(write(tmp_path, "base: gone.yaml"))
    assert "base=3 must be the name of a YAML file" in message(write(tmp_path, "base: 3"))


# Files that are no configuration


def test_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1", "coco_016.yaml")
    assert message(tmp_path / "coco_16.yaml") == (
        f"{tmp_path}/coco_16.yaml: no such configuration file; {tmp_path} has coco_016.yaml"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no settings; give at least one, such as global_batch: 16"),
        ("# only a comment\n", "has no settings"),
        ("- 1\n- 2\n", "the top level must be a mapping (key: value), not a list"),
        ("just words\n", "the top level must be a mapping (key: value), not a str"),
        ("model: [", "not valid YAML: line 1, column 9: "),
        ("a: b: c", "not valid YAML: line 1, column 5: "),
        ("\tseed: 1", "not valid YAML: line 1, column 1: "),
        (
            "seed: 1\nmodel:\n  norm: bn\nseed: 2\n",
            "line 4, column 1: the key 'seed' stands here twice, first in line 1; keep one",
        ),
        ("model:\n  norm: bn\n  norm: cgbn\n", "the key 'norm' stands here twice"),
        ("1: 2\n", "the key '1' is not a name"),
        ("seed: !!python/object/apply:os.getpid []\n", "could not determine a constructor"),
        ("seed: &a [*a]\n", "values contain themselves"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path, text)
    found = message(file)
    assert found.startswith(f"{file}: ")
    assert expected in found


def test_binary_file_and_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(b"PK\x03\x04\xff\xfe\x00")
    assert "not a text file (UTF-8)" in message(file)
    assert "can't be read (Is a directory)" in message(tmp_path)


# Keys and values that don't fit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning.rat=3", "learning.rat: no such key; nearest: learning.rate, "),
        ("global_bacth=3", "global_bacth: no such key; nearest: global_batch"),
        ("rate=2", "rate: no such key; nearest: learning.rate, "),
        ("model.nms_iou=0.4", "nearest: model.rpn.nms_iou, model.roi.nms_iou"),
        ("learning.keep_empty=true", "nearest: data.keep_empty"),
        ("train.scope=world", "nearest: bn.scope"),
        ("lr=1", "lr: no such key; nearest: learning.base_rate"),
        ("batch_size=3", "batch_size: no such key; nearest: global_batch"),
        ("x.y.z=1", "x.y.z: no such key; nearest: "),
        ("base=coco_base.yaml", "base: no such key; nearest: "),
    ],
)
def test_unknown_override(text: str, expected: str) -> None:
    assert expected in message(None, text)


def test_unknown_keys_in_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, "batch: 3\nmodel:\n  rpn: {pre_nms_trian: 5}\n  norms: bn\n")
    assert message(file).splitlines() == [
        f"{file}: 3 settings are wrong",
        "  model.rpn.pre_nms_trian: no such key; nearest: model.rpn.pre_nms_train, "
        "model.rpn.post_nms_train, model.rpn.pre_nms_test",
        "  model.norms: no such key; nearest: model.norm, model.norm_eps, model.roi.norm",
        "  batch: no such key; nearest: global_batch",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("global_batch=0", "global_batch=0: must be a whole number > 0; the default is 8"),
        ("global_batch=16.0", "global_batch=16.0: must be a whole number > 0; try 16"),
        ("global_batch=1e3", "global_batch=1000.0: must be a whole number > 0; try 1000"),
        ("global_batch='16'", "must be a whole number > 0; take the quotes away: 16"),
        ("global_batch=true", "global_batch=true: must be a whole number > 0"),
        ("global_batch=", "global_batch=null: must be a whole number > 0"),
        ("deterministic=yes", "deterministic=yes: must be true or false; try true"),
        ("deterministic=1", "deterministic=1: must be true or false"),
        ("device=gpu", "device=gpu: must be auto or cpu or cuda"),
        ("model.norm=frozn", "must be cgbn or frozen or bn or none; try frozen"),
        ("model.backbone=Resnet50", "try resnet50"),
        (
            "model.anchor_sizes=[1,2]",
            "must be a list of numbers > 0, 5 of them; the default is [12",
        ),
        ("data.min_sizes=[]", "must be a list of whole numbers > 0, at least 1"),
        ("data.min_sizes=800", "data.min_sizes=800: must be a list of whole numbers > 0"),
        ("data.min_sizes=[640,-1]", "data.min_sizes.1=-1: must be a whole number > 0"),
        ("data.workers=-1", "must be a whole number ≥ 0 or auto; the default is auto"),
        ("data.workers=many", "data.workers=many: must be a whole number ≥ 0 or auto"),
        ("data.flip_probability=1.5", "must be a number ≥ 0 and ≤ 1; the default is 0.5"),
        ("learning.base_rate=.inf", "learning.base_rate=Infinity: must be a number > 0"),
        ("learning.base_rate=.nan", "learning.base_rate=NaN: must be a number > 0"),
        ("learning.base_rate=1e999", "must be a number > 0"),
        ("data.train=[{annotations: a}]", "data.train.0.images is missing: give text"),
        ("data.train=[{annotations: 3, images: b}]", 'must be text; put it in quotes: "3"'),
        ("data.train=[3]", "data.train.0=3: must be a group of settings; its keys are annotations"),
        ("learning.milestones=[{epoch: 1, factor: 0}]", "learning.milestones.0.factor=0: must be"),
        ("model=3", "model=3: must be a group of settings; its keys are detector, backbone, "),
        ("model.rpn=null", "model.rpn=null: must be a group of settings; its keys are conv_depth"),
        ("data.kind=coco", "data.kind=coco needs data.train: a list of {annotations: FILE"),
        ("learning.policy=normal", "belong to learning.policy=custom, not to policy=normal: set"),
        ("learning.epochs=auto", "learning.policy=custom needs learning.epochs"),
        (
            "learning.accumulation=3",
            "learning.accumulation=3 passes (8 % 3 = 2); try global_batch=9",
        ),
        ("model.rpn.background_iou=0.8", "rpn.background_iou=0.8 must not exceed"),
    ],
)
def test_wrong_values(text: str, expected: str) -> None:
    found = message(None, text)
    assert found.startswith(f"the embedded default with {text}: 1 setting is wrong\n  ")
    assert expected in found
    assert len(found.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("global_batch", "global_batch: an override is key.sub=value, such as"),
        ("=3", "=3: an override is key.sub=value, without blanks around ="),
        (
            "mine.yaml",
            "key.sub=value, and a configuration file is given by --config mine.yaml",
        ),
        ("seed=[", "seed=[: not valid YAML: line 1, column 2"),
        ("seed.x=3", "seed.x: no such key"),
        ("model.rpn.=3", "model.rpn.: no such key"),
        ("..=3", "..: no such key"),
        ("model.anchor_ratios.x=7", "model.anchor_ratios"),
    ],
)
def test_overrides_that_are_none(text: str, expected: str) -> None:
    assert expected in message(None, text)


def test_all_wrong_overrides_are_named_at_once() -> None:
    found = message(None, "lr=1", "nonsense", "sede=2").splitlines()
    assert [line.split(":")[0] for line in found] == ["lr", "nonsense", "sede"]
    found = message(None, "global_batch=0", "device=gpu", "seed=-1").splitlines()
    assert [line.split(":")[0].strip() for line in found[1:]] == [
        "global_batch=0",
        "seed=-1",
        "device=gpu",
    ]


def test_an_override_into_something_without_settings(tmp_path: Path) -> None:
    file = write(tmp_path, "model: 3\n")
    assert message(file, "model.norm=bn") == (
        "model.norm: model is 3, which has no settings inside it"
    )


def test_a_stored_configuration_from_elsewhere_is_checked() -> None:
    with pytest.raises(UserError, match=r"checkpoint x\.pt: 1 setting is wrong\n  lr: no such key"):
        config_from_dict({"lr": 3}, "checkpoint x.pt")
