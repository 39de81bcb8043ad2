"""Called by ranks on two pretended machines, half of them on each: case after case.

Each case prints ``CASE name exit CODE said TEXT`` from every rank.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from PIL import Image

from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.job.horovod_settings import changed_environment


def machine_of_rank() -> list[int]:
    size = read_launch(os.environ).size or 1
    return [2 * rank // size for rank in range(size)]


def case(name: str, *words: str) -> None:
    from megdet_hvd.preflight.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["device=cpu", *words], machine_of_rank=machine_of_rank())
    text = json.dumps(out.getvalue() + err.getvalue(), ensure_ascii=False)
    sys.stdout.write(f"CASE {name} exit {code} said {text}\n")
    sys.stdout.flush()


def pictures(folder: Path) -> list[str]:
    """Words for a data set below ``folder``; every rank writes the same, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i}.png" for i in range(8)]
    for name in names:
        Image.new("RGB", (16, 16)).save(folder / name)
    boxes = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.25, 0.5]]  # in parts of the picture
    content = {
        "images": [{"id": i, "file_name": n} for i, n in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": boxes[i % 2]} for i in range(8)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return ["data.kind=coco", "data.train=[{annotations: '${DATA}/a.json', images: '${DATA}'}]"]


def cases(folder: str, launcher: str) -> None:
    """Each rank's data are below ``folder``."""
    rank = read_launch(os.environ).rank
    assert rank is not None
    machine = machine_of_rank()[rank]
    os.environ["DATA"] = f"{folder}/{rank}"
    words = pictures(Path(os.environ["DATA"]))
    case("settings", f"seed={machine}")
    with changed_environment({"MEGDET_TASKS_PER_NODE": "4", "MEGDET_NODES": "1"}):
        case("sizes")
    case("good", *words)
    if launcher == "mpirun":  # Gloo starts once in a process
        if machine == 1:
            Path(os.environ["DATA"], "3.png").unlink()  # of rank 3: 3, 7
        case("data", *words)
