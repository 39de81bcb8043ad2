"""What a check found: problems, what could not be looked at, and facts."""

from dataclasses import dataclass, field

from megdet_hvd.errors import UserError


@dataclass
class CheckReport:
    """Filled check by check, so that everything wrong is named at once."""

    problems: list[str] = field(default_factory=list)
    """Each keeps the job from running."""
    notes: list[str] = field(default_factory=list)
    """Worth knowing, or not checked."""
    facts: list[str] = field(default_factory=list)
    """What would run."""

    def problem(self, error: UserError | str) -> None:
        """Add one, its lines indented below the first."""
        text = str(error)
        if text not in self.problems:
            self.problems.append(text)

    def lines(self) -> list[str]:
        """For the screen."""
        shown = [*self.facts]
        for head, entries in (("note", self.notes), ("PROBLEM", self.problems)):
            for entry in entries:
                first, *more = entry.splitlines() or [""]
                shown += [f"{head}: {first}", *(f"  {line}" for line in more)]
        count = len(self.problems)
        if count:
            shown.append(
                f"{count} {'problem' if count == 1 else 'problems'}; nothing was submitted"
            )
        return shown
