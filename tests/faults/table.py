"""What a campaign found, as a table of kinds and outcomes."""

from collections.abc import Sequence

from tests.faults.chain import ChainReport
from tests.faults.kinds import KINDS


def totals(reports: Sequence[ChainReport]) -> tuple[int, int, int]:
    """Faults that took effect, those of them that were answered wrongly, and those that missed."""
    records = [record for report in reports for record in report.records]
    effective = [record for record in records if record.effective]
    wrong = sum(bool(record.problems) for record in effective)
    return len(effective), wrong, len(records) - len(effective)


def table(reports: Sequence[ChainReport]) -> str:
    """Markdown, a line a kind."""
    lines = [
        "| fault | what | took effect | missed | as it must be | not | longest attempt, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        records = [r for report in reports for r in report.records if r.kind == kind.name]
        effective = [record for record in records if record.effective]
        wrong = sum(bool(record.problems) for record in effective)
        longest = f"{max(r.took_s for r in effective):.0f}" if effective else "–"
        lines.append(
            f"| {kind.name} | {kind.what} | {len(effective)} | {len(records) - len(effective)} | "
            f"{len(effective) - wrong} | {wrong} | {longest} |"
        )
    whole = sum(not report.problems for report in reports)
    effective_all, wrong_all, missed = totals(reports)
    lines += [
        f"| **all** | | {effective_all} | {missed} | {effective_all - wrong_all} | {wrong_all} | |",
        "",
        f"Chains: {len(reports)}; at their end equal to the run without faults, and no checkpoint "
        f"lost: {whole}.",
    ]
    return "\n".join(lines)
