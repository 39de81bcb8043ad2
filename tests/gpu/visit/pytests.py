"""Tests of tests/gpu, counted."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value

ROOT = Path(__file__).resolve().parents[3]


def counts(setting: Setting, words: Sequence[str]) -> Iterator[tuple[str, Value]]:
    """How many passed, failed and were skipped; the names of those that failed."""
    report = setting.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--durations=10", f"--junitxml={report}", f"--basetemp={setting.folder / 'tmp'}"]
    report.unlink(missing_ok=True)  # an earlier try's, if this one ends without any
    code = subprocess.run([*command, *words], cwd=ROOT).returncode
    yield "pytest's exit code", code
    yield from of_report(report.read_text(encoding="utf-8"))


def of_report(text: str) -> Iterator[tuple[str, Value]]:
    """From JUnit's XML."""
    passed, skipped, failed = 0, 0, []
    for case in ElementTree.fromstring(text).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.append(str(case.get("name")))
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    yield "passed", passed
    yield "failed", len(failed)
    yield "skipped", skipped
    for name in failed:
        yield f"failed: {name}", True
