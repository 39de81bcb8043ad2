"""One process: training where somebody else works, or comes. Argument: a folder."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from megdet_hvd.engine.step.optimizer import set_rate
from megdet_hvd.errors import UserError
from megdet_hvd.run_lock import lock
from megdet_hvd.run_lock.owner import own_identity, record_text
from megdet_hvd.train import main, train
from tests.engine.small import nothing_drawn, small_config, small_settings

FOLDER = Path(sys.argv[1])
RUN = FOLDER / "runs" / "x"


def locks() -> list[str]:
    return sorted(path.name for path in RUN.iterdir() if path.name.startswith(".lock"))


def in_a_program() -> None:
    config = small_config(FOLDER, ["learning.max_iterations=1"])
    RUN.mkdir(parents=True)
    held = lock.take(RUN, say=print)
    try:
        train(config, run_folder=RUN)
        print("trained beside another")
    except UserError as error:
        print(f"refused: {error}")
    print("left", sorted(path.name for path in RUN.iterdir()))
    held.release()
    result = train(config, run_folder=RUN)
    print("iteration", result.iteration, locks())
    with mock.patch("megdet_hvd.engine.library.execute", side_effect=ZeroDivisionError):
        try:
            train(config, run_folder=RUN, resume=True)
        except ZeroDivisionError:
            print("failed", locks())


def taken_over() -> int:
    """In its third step another process takes the run, as from one that was stopped."""
    steps = 0

    def begin(optimizer: Any, rate: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            other = replace(own_identity({}), host="n7", boot="other", pid=77, nonce="theirs")
            (RUN / lock.RECORD).write_text(record_text(other))
            true = lock._clock()
            mock.patch.object(lock, "_clock", lambda: true + lock.LEASE_S).start()
        set_rate(optimizer, rate)

    more = small_settings(FOLDER, "learning.max_iterations=9", "checkpoint.every_iterations=1")
    with mock.patch("megdet_hvd.engine.step.loop.set_rate", begin):
        return main(["--run", str(RUN), *more])


if __name__ == "__main__":
    with nothing_drawn():
        in_a_program()
        sys.exit(taken_over())
