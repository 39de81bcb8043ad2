"""Preflights of real jobs: bad ones end with one message on all ranks, good ones say figures."""

import json
import re
import shutil
from pathlib import Path

import pytest

from megdet_hvd.preflight.facts import code_digests
from tests.engine.small import small_settings
from tests.pool import on_ranks
from tests.ranks import ROOT, Launcher, run_ranks

EXPECTED = {
    "good": 0,
    "settings": 2,
    "data": 2,
    "sizes": 2,
}


@pytest.mark.parametrize(("launcher", "np"), [("mpirun", 4), ("gloo", 2)])
def test_ranks_on_two_machines(launcher: Launcher, np: int, tmp_path: Path) -> None:
    check = "tests.preflight.check_preflight:cases"
    done = on_ranks(check, np, tmp_path, launcher, launcher=launcher, timeout_s=300)
    said: dict[str, str] = {}
    for name, code in EXPECTED.items():
        if name == "data" and launcher != "mpirun":
            continue
        found = re.findall(rf"CASE {name} exit (\d+) said (\".*\")", done.stdout)
        assert [int(each) for each, _ in found] == [code] * np, f"{name}\n{done.stdout}"
        spoken = [text for _, text in found if text != '""']
        assert len(spoken) == 1, f"{name}: rank 0 speaks for all: {spoken}"
        said[name] = json.loads(spoken[0])
        assert "Traceback" not in said[name]
    good = said["good"]
    host = r"\S+ \(machine"
    assert re.search(rf"preflight: {host} 2\): ranks? .*local size \d, cross size \d", good)
    assert f"{2 * np} pictures read" in good
    assert "preflight: training: 8 pictures, 8 boxes of 1 class," in good
    assert "warning: preflight: training: boxes look like fractions of the picture" in good
    assert re.search(rf"all-reduce over {np} ranks: \d+ µs for 1 KiB; [\d.]+ MiB in .* MB/s", good)
    assert re.search(rf"between machines: slowest link {host} 1\) – {host} 2\): .* MB/s, \d+", good)
    assert ("within machines: slowest link ranks" in good) == (np == 4)
    assert re.search(
        r"configuration differs in seed: ranks? [-123]+ \(.* \(machine 2\)\) ha(s|ve) \w{8}, ",
        said["settings"],
    )
    if "data" in said:
        assert re.search(rf"  {host} 2\): {tmp_path}/3/3.png: no such file", said["data"])
        assert "(machine 1): /" not in said["data"]
    assert "1 machines were asked for and ranks run on 2" in said["sizes"]
    assert re.search(r"\(machine 1\) runs \d ranks \(0(-1)?\), 4 were asked for", said["sizes"])


CHANGED = """
import os, sys
if int(os.environ["OMPI_COMM_WORLD_RANK"]) == 1:
    sys.path.insert(0, sys.argv.pop(1))
else:
    sys.argv.pop(1)
import megdet_hvd
from megdet_hvd.train import main
sys.exit(main())
"""


def test_a_rank_with_other_code_is_named_and_nothing_is_trained(tmp_path: Path) -> None:
    other = tmp_path / "other" / "megdet_hvd"
    shutil.copytree(ROOT / "megdet_hvd", other, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "engine" / "loop.py").open("a") as file:
        file.write("# a change\n")
    script = tmp_path / "changed.py"
    script.write_text(CHANGED)
    done = run_ranks(
        script, 2, other.parent, *small_settings(tmp_path), launcher="mpirun", timeout_s=120
    )
    assert done.returncode != 0
    (line,) = [line for line in done.stdout.splitlines() if "differs" in line]
    assert re.search(r"code differs in engine: rank 1 \(.*\) has \w{8}, rank 0 \w{8}; update", line)
    assert "Traceback" not in done.stdout and not (tmp_path / "runs").exists()


def test_digests_follow_the_sources(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "a.py").write_text("1")
    (tmp_path / "train.py").write_text("2")
    before = code_digests(tmp_path)
    assert list(before) == ["engine", "train"]
    (tmp_path / "engine" / "a.py").rename(tmp_path / "engine" / "b.py")
    after = code_digests(tmp_path)
    assert before["engine"] != after["engine"] and before["train"] == after["train"]
