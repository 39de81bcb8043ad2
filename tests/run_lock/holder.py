"""A process that holds a folder and writes a line every now and then, until it is told otherwise.

Arguments: folder, how it ends (``wait``, ``return``, ``raise``, ``exit``), lease in seconds.
"""

import sys
import time
from pathlib import Path

from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.run_lock import lock


def main(folder: Path, ending: str, lease_s: float) -> int:
    lock.LEASE_S, lock.BEAT_S, lock._LOOK_S = lease_s, lease_s / 20, lease_s / 100
    try:
        held = lock.take(folder, say=lambda text: print(f"said {text}", flush=True))
    except (UserError, StorageError) as error:
        print(f"{type(error).__name__} {error}", flush=True)
        return 2
    print(f"holds {held.owner.pid}", flush=True)
    try:
        if ending == "raise":
            raise ZeroDivisionError
        if ending == "exit":
            sys.exit(5)
        while ending == "wait":
            time.sleep(0.02)
            held.check()
            with (folder / "written").open("a") as file:
                file.write(f"{held.owner.pid}\n")
    except RunError as error:
        print(f"RunError {error}", flush=True)
        return 3
    finally:
        held.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
