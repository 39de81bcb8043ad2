"""What was measured beside what was expected."""

from collections.abc import Mapping, Sequence

from tests.gpu.visit.expected import ALWAYS, Expected
from tests.gpu.visit.record import Record, Value

OFF, MISSING = "OFF", "missing"


def number(value: Value) -> str:
    """Three or more digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != value or abs(value) >= 1000:
            return f"{value:.0f}"
        return f"{value:.3g}"
    return str(value)


def shown_range(expected: Expected) -> str:
    """``3``, ``3 … 4``, ``≥ 1.5``, ``≤ 20``."""
    low, high = number(expected.low), number(expected.high)
    if expected.low == expected.high:
        return low
    if expected.high == ALWAYS:
        return f"≥ {low}"
    return f"≤ {high}" if expected.low == -ALWAYS else f"{low} … {high}"


def verdict(expected: Expected, value: Value | None) -> str:
    """Empty: as expected."""
    if value is None:
        return MISSING
    fits = isinstance(value, bool | int | float) and expected.low <= value <= expected.high
    return "" if fits else OFF


def lines(
    records: Mapping[str, Record | None],
    expectations: Sequence[Expected],
    not_reached: Sequence[str] = (),
) -> list[str]:
    """The table; parts in their order, and what is off once more at the end."""
    by_quantity = {(one.part, one.quantity): one for one in expectations}
    rows = [("part", "quantity", "measured", "expected", "", "source")]
    off = [] if records else ["no part has been begun in this folder"]
    for part, record in records.items():
        if record is None:
            state = "not reached" if part in not_reached else "not begun"
            rows.append((part, state, "", "", "", ""))
            off += [f"{part}: {state}"]
            continue
        took = f"{record.seconds:.0f} s{', small' if record.small else ''}"
        rows.append((part, record.state, took, "", "", ""))
        off += [] if record.state == "done" else [f"{part}: {record.state} {record.why}"]
        wanted = [
            one.quantity
            for one in expectations
            if one.part == part and one.quantity not in record.quantities
        ]
        for quantity in [*record.quantities, *wanted]:
            value = record.quantities.get(quantity)
            expected = by_quantity.get((part, quantity))
            if expected is None or (expected.where == "cuda" and record.device != "cuda"):
                if value is not None:
                    rows.append(("", quantity, number(value), "", "", ""))
                continue
            found = verdict(expected, value)
            if found == MISSING and record.state != "done":
                continue  # the part says why
            shown = "" if value is None else number(value)
            rows.append(("", quantity, shown, shown_range(expected), found, expected.source))
            if found:
                off.append(
                    f"{part}, {quantity}: {shown or found}, expected {shown_range(expected)}"
                )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    table = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]])
        for row in rows
    ]
    end = [f"as expected, all {len(records)} parts"] if not off else ["", "off:", *off]
    return [line.rstrip() for line in [*table, *end]]
