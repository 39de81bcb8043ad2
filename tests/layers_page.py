"""docs/layers.md, from the levels that test_layers.py holds imports to.

``python -m tests.layers_page > docs/layers.md`` writes it anew.
"""

from tests.test_layers import LEVELS, NO_TORCH, NO_TORCH_MODULES

_HEAD = """\
# Which part may import which

Written by `python -m tests.layers_page > docs/layers.md` from the levels in `tests/test_layers.py`,
which reads every import of the package, those inside functions too; a test holds the page to them.

A part may import itself and parts of rows below its own, never its neighbours. (Of `data`, `model`
may know one contract, `data.batch`.) Parts in **bold** import neither torch nor Horovod, nor does
anything that they import: they answer on a login node in a blink.

| | parts of `megdet_hvd` |
|---|---|
"""


def layers_page() -> str:
    """The whole page, Markdown; the highest level first."""
    rows = []
    for level in reversed(range(len(LEVELS))):
        parts = (f"**`{part}`**" if part in NO_TORCH else f"`{part}`" for part in LEVELS[level])
        rows.append(f"| {level + 1} | {' '.join(parts)} |")
    modules = ", ".join(f"`{name}`" for name in NO_TORCH_MODULES)
    table = "\n".join(rows)
    return f"{_HEAD}{table}\n\nModules of other parts that do without torch as well: {modules}.\n"


if __name__ == "__main__":
    print(layers_page(), end="")
