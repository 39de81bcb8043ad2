"""One process: runs whose files fail for a moment, or for good. Argument: a folder.

Each says its exit code, how often a file really failed, and what was said on standard error.
"""

import contextlib
import errno
import io
import math
import os
import sys
from pathlib import Path

from megdet_hvd import storage
from megdet_hvd.evaluate import main as evaluate
from megdet_hvd.predict import main as predict
from megdet_hvd.train import main as train
from tests.engine.check_bad_input import coco_set
from tests.engine.small import nothing_drawn, small_settings
from tests.failing_storage import failing

FOLDER = Path(sys.argv[1])
PROGRAMS = {"train": train, "evaluate": evaluate, "predict": predict}


def attempt(
    name: str,
    argv: list[str],
    ending: str = "nothing",
    number: int = errno.ESTALE,
    times: float = 1,
    calls: str = "open",
    program: str = "train",
) -> None:
    said = io.StringIO()
    os.environ["MEGDET_OUTCOME"] = str(FOLDER / f"{name}.json")
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        failing(ending, number, times, calls) as state,
    ):
        code = PROGRAMS[program](argv)
    told = " / ".join(line for line in said.getvalue().splitlines() if "Warning" not in line)
    print(f"ATTEMPT {name} code {code} failed {state.met} said {told}", flush=True)


def main() -> None:
    storage.PAUSES_S = (0.0, 0.0)
    own = coco_set(FOLDER / "set")
    # Validation on the same pictures: evaluation reads them, too.
    own[2] = own[1].replace("data.train", "data.val")
    small = [*small_settings(FOLDER, "learning.max_iterations=2", *own)]
    (FOLDER / "c.yaml").write_text("seed: 3\n")
    config = ["--config", str(FOLDER / "c.yaml")]
    good = FOLDER / "runs" / "good"
    attempt("good", [*config, *small, "name=good"])
    once = [
        ("configuration", "c.yaml", "open"),
        ("annotations", "train.json", "open"),
        ("listing", str(FOLDER / "set"), "list"),
        ("picture", "p3.png", "open"),
        ("checkpoint", ".tmp", "open"),
    ]
    with contextlib.ExitStack() as stack:  # each of them once, in one run
        states = [stack.enter_context(failing(e, errno.EMFILE, 1, calls)) for _, e, calls in once]
        attempt("once", [*config, *small, "name=once"])
        print(f"ATTEMPT met code 0 failed {sum(state.met for state in states)} said", flush=True)
    for name, ending, calls in once:
        words = [*config, *small, f"name={name}_inf"]
        attempt(f"{name}_inf", words, ending, errno.EIO, math.inf, calls)
    more = ["--resume", str(good), "learning.max_iterations=3"]
    latest = "iteration_00000002.pt"
    attempt("resume_inf", more, latest, errno.ESTALE, math.inf)
    attempt("resume_stat_inf", more, latest, errno.EIO, math.inf, "stat")
    attempt("resume_list_inf", more, "good/checkpoints", errno.EIO, math.inf, "list")
    attempt("resume_1", more, latest, errno.ESTALE, 1)
    read = ["--checkpoint", str(good)]
    latest = "iteration_00000003.pt"
    attempt("evaluate_inf", read, latest, errno.EIO, math.inf, program="evaluate")
    attempt("evaluate_picture_inf", read, "p3.png", errno.EIO, math.inf, program="evaluate")
    pictures = [str(FOLDER / "set" / "p1.png"), str(FOLDER / "set" / "p2.png")]
    out = ["--out", str(FOLDER / "out")]
    listing = [*read, str(FOLDER / "set"), *out]
    attempt(
        "predict_list_inf", listing, str(FOLDER / "set"), errno.EIO, math.inf, "list", "predict"
    )
    attempt("predict_inf", [*read, *pictures, *out], "p1.png", program="predict", times=math.inf)


if __name__ == "__main__":
    with nothing_drawn():
        main()
