"""``docs/resume.md``: what each setting does when it is changed for a resume.

``python -m megdet_hvd.config.resume_table > docs/resume.md`` writes it anew.
"""

import sys

from megdet_hvd.command import leave
from megdet_hvd.config.keys import groups
from megdet_hvd.config.resume_rules import RULES, Rule

_HEAD = """\
# What may change when a run is carried on

Written by `python -m megdet_hvd.config.resume_table > docs/resume.md` from the rules in
`megdet_hvd/config/resume_rules.py`; a test holds it to them, and another one changes each setting
and looks at what is in effect.

A resumed run (`--resume`, or `--run` on a run that has begun) has the configuration that it is
given: the run folder's `config.yaml`, or `--config FILE`, with the settings of the command line on
top, edited or not. What differs from the checkpoint's own configuration is in the log, one line
a setting, with what becomes of it:

* **applies**: it is in effect, as the table says. Of the optimizer only momentum comes from the
  checkpoint; weight decay, momentum's factor and rate come from the configuration.
* **same pictures**: applies; the resume is refused where the training pictures (number, ids,
  order) or the classes are others than the checkpoint's, since the order of the pictures could not
  go on.
* **refused**: all processes end before training with one line and exit code 2.
* **no effect**: accepted, and a warning says so.

Where a setting changes how mmAP is measured, or the validation data are others, `best.pt` is
chosen anew, among the evaluations from then on.
"""


def resume_table() -> str:
    """The whole page, Markdown."""
    lines = [_HEAD]
    for group in groups():
        if not group.keys:
            continue
        title = f"`{group.path}`" if group.path else "The run as a whole"
        lines += [f"## {title}", "", "| setting | changed | what happens |", "|---|---|---|"]
        for key in group.keys:
            name = key.path.rpartition(".")[2]
            lines.append(f"| `{name}` | {RULES[key.path].answer} | {_words(RULES[key.path])} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _words(rule: Rule) -> str:
    where = "" if rule.only is None else f" (where `{rule.only[0]}={rule.only[1]}`)"
    return f"{rule.words}{where}"


def main() -> int:
    """Print the page."""
    sys.stdout.write(resume_table())
    return 0


if __name__ == "__main__":
    leave(main)
