"""What Horovod itself saw: one collective each way a layer and step, cached after the first."""

import json
from collections import Counter
from pathlib import Path

from tests.bn.check_timeline import STEPS
from tests.pool import on_ranks


def events(file: Path) -> list[dict[str, object]]:
    """The timeline is an open JSON list."""
    text = file.read_text().rstrip().rstrip(",").rstrip("]").rstrip().rstrip(",")
    return [event for event in json.loads(text + "]") if event]


def test_one_collective_each_way_and_the_response_cache_hit(tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    on_ranks("tests.bn.check_timeline:steps", 2, env={"HOROVOD_TIMELINE": str(file)})
    found = events(file)
    tensor_of = {
        event["pid"]: event["args"]["name"]  # type: ignore[index]
        for event in found
        if event.get("name") == "process_name" and "name" in event["args"]  # type: ignore[operator]
    }
    expected = {f"cgbn.{k}.{way}.0" for k in (1, 3) for way in ("forward", "backward")}
    ours = {pid: str(name) for pid, name in tensor_of.items() if "cgbn" in str(name)}
    assert {name.split("/")[-1].removeprefix("allreduce.") for name in ours.values()} == expected
    reduced: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for event in found:
        name = ours.get(event.get("pid"))
        if name is None or event.get("ph") == "E":
            continue
        reduced[name] += event["name"] == "ALLREDUCE"
        # While a name is not cached, every rank's request for it is a tick named by the rank.
        answers[name] += str(event["name"]).isdigit()
    assert set(reduced.values()) == {STEPS}, reduced
    assert set(answers.values()) == {2}, f"asked for anew after the first step: {answers}"
