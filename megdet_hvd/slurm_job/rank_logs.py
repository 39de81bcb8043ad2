"""What the other ranks said, for the end of the job's log where a run failed."""

from pathlib import Path

_FILES = 3
_LINES = 15
_BYTES = 20_000
_SIGNS = ("error", "Traceback", "Killed", "Segmentation fault")


def last_words(folder: Path) -> list[str]:
    """The ends of those rank logs that tell of an error, three at most."""
    found = []
    for file in sorted(folder.glob("rank_*.log")):
        try:
            with file.open("rb") as content:
                content.seek(max(0, file.stat().st_size - _BYTES))
                text = content.read().decode(errors="replace")
        except OSError:
            continue
        if any(sign in text for sign in _SIGNS):
            found.append((file, text.strip().splitlines()[-_LINES:]))
    lines = []
    for file, tail in found[:_FILES]:
        lines += [f"the end of {file}:", *(f"  {line}" for line in tail)]
    if len(found) > _FILES:
        lines.append(f"{len(found) - _FILES} more files of {folder} tell of errors")
    return lines
