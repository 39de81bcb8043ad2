"""``docs/settings.md``: every setting, what it may be, its default, and what it means.

``python -m megdet_hvd.config.settings_table > docs/settings.md`` writes it anew.
"""

import re
import sys

from megdet_hvd.command import leave
from megdet_hvd.config.embedded import embedded_value
from megdet_hvd.config.keys import Key, as_typed, groups, prose
from megdet_hvd.config.resume_rules import RULES

_HEAD = """\
# Every setting

Written by `python -m megdet_hvd.config.settings_table > docs/settings.md` from the schema in
`megdet_hvd/config`; a test holds it to it. `python -m megdet_hvd.train --help` prints the same.

A setting is given behind the command, `learning.policy=long`, or in a YAML file
(`--config FILE`), where the words before a dot are groups:

```yaml
global_batch: 16
learning: {policy: long}
```

The value is YAML, so lists are `[640,800]` and nothing is `null`. A file may build on another one
(`base: coco_base.yaml`), and `${NAME}` in a path is an environment variable. The command line wins
over the file, the file over the defaults below. A name that does not exist is refused with the
nearest ones that do.

The defaults are the paper's, and those of any `--config FILE`. Where a second value stands in
brackets, the embedded run without `--config` has that.

The last column says what becomes of a setting that is changed when a run is carried on; the
reasons are in [what may change when a run is carried on](resume.md).
"""


def settings_table() -> str:
    """The whole page, Markdown."""
    lines = [_HEAD]
    for group in groups():
        if not group.keys:
            continue
        title = f"`{group.path}`" if group.path else "The run as a whole"
        lines += [f"## {title}", ""]
        if group.path:
            lines += [_markdown(group.doc), ""]
        lines += ["| setting, default | value | meaning | on resume |", "|---|---|---|---|"]
        lines += [_row(key) for key in group.keys]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(key: Key) -> str:
    default = key.path if key.default is ... else f"{key.path}={as_typed(key.default)}"
    inner = embedded_value(key.path)
    embedded = "" if inner in (..., key.default) else f" (`{as_typed(inner)}`)"
    cells = (f"`{default}`{embedded}", key.kind, _markdown(key.doc), RULES[key.path].answer)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _markdown(doc: str) -> str:
    """A docstring on one line, with Markdown's code spans."""
    return re.sub(r":\w+:`~?([^`]+)`", r"``\1``", prose(doc)).replace("``", "`")


def main() -> int:
    """Print the page."""
    sys.stdout.write(settings_table())
    return 0


if __name__ == "__main__":
    leave(main)
