"""What `launch chaos` has found: as JSON, as Markdown, and as a table in the terminal."""

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from jobs.files import publish, publish_json
from launcher.chaos.beater import Dealt
from launcher.chaos.schedule import Course, Moment
from launcher.chaos.verdict import RunVerdict

WIDTH: Final = 140
"""Of what is not a terminal."""
PHASES: Final = tuple(f"in {moment}" for moment in Moment)
COLUMNS: Final = ("blow", "drawn", "dealt", "landed", *PHASES, "steps lost", "at most", "seconds")


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    facts: Mapping[str, str]
    """Config, commit, place, versions ... by name."""
    seed: int
    course: Course
    left_out: Mapping[str, str]
    """Kinds of blows that were not possible, with the reason."""
    dealt: Sequence[Dealt]
    verdicts: Sequence[RunVerdict]
    seconds: float

    @property
    def landed(self) -> int:
        return sum(each.landed for each in self.dealt)

    @property
    def breaches(self) -> list[str]:
        return [f"blow {each.blow.number}: {each.note}" for each in self.dealt if each.breach]

    @property
    def good(self) -> bool:
        return bool(self.landed) and not self.breaches and all(verdict.good for verdict in self.verdicts)

    def verdict(self) -> str:
        """In one line."""
        same = sum(verdict.identical for verdict in self.verdicts)
        useful = sum(verdict.goodput.useful for verdict in self.verdicts)
        executed = sum(verdict.goodput.executed for verdict in self.verdicts)
        ratio = f"{useful / executed:.1%} ({useful} of {executed} steps)" if executed else "none"
        blows = f"{self.landed} of {len(self.dealt)} drawn blows landed"
        word = "HELD" if self.good else "FAILED" if self.landed else "NOTHING WAS TRIED"
        return f"{word}: {same} of {len(self.verdicts)} runs identical to the calm one; {blows}; goodput {ratio}"

    def problems(self) -> list[str]:
        """Each thing that is not as it must be."""
        found = list(self.breaches)
        for verdict in self.verdicts:
            if not verdict.identical:
                found.append(f"seed {verdict.seed}: {verdict.compared}")
            found += [f"seed {verdict.seed}: {gap}" for gap in verdict.gaps]
            found += [
                f"seed {verdict.seed}: {loss.steps} steps lost by attempt {loss.attempt} ({loss.kind}), at most "
                f"{loss.allowed} may be"
                for loss in verdict.too_much
            ]
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """One per kind, `COLUMNS`."""
        names = list(
            dict.fromkeys(each.blow.kind.name for each in sorted(self.dealt, key=lambda each: each.blow.kind.name))
        )
        return [self._row(name) for name in names]

    def _row(self, name: str) -> tuple[str, ...]:
        mine = [each for each in self.dealt if each.blow.kind.name == name]
        struck = sum(each.attempt is not None for each in mine)
        landed = [each for each in mine if each.landed]
        phases = [str(sum(each.doing is moment for each in landed)) for moment in Moment]
        lost = [loss for verdict in self.verdicts for loss in verdict.losses if loss.kind == name]
        most = str(max((loss.steps for loss in lost), default=0))
        allowed = "0" if mine[0].blow.kind.notice else str(2 * self.course.interval)
        times = [each.seconds for each in landed if each.seconds is not None]
        median = f"{statistics.median(times):.1f}" if times else ""
        return (name, str(len(mine)), str(struck), str(len(landed)), *phases, most, allowed, median)

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict(),
            "good": self.good,
            "problems": self.problems(),
            "seed": self.seed,
            **dict(self.facts),
            "course": asdict(self.course),
            "seconds": round(self.seconds, 1),
            "left_out": dict(self.left_out),
            "runs": [{**asdict(verdict), "goodput": asdict(verdict.goodput)} for verdict in self.verdicts],
            "blows": [
                {**asdict(each), "blow": {**asdict(each.blow), "kind": each.blow.kind.name}} for each in self.dealt
            ],
        }

    def as_markdown(self, level: str = "#") -> str:
        """`level`: of its heading."""
        runs = [
            (
                str(each.seed),
                each.compared,
                "; ".join(each.gaps) or "each once",
                str(sum(loss.steps for loss in each.losses)),
                f"{each.goodput.ratio:.1%}" if each.goodput.ratio is not None else "",
                str(each.attempts),
                ", ".join(f"{count} {cause}" for cause, count in sorted(each.causes.items())),
            )
            for each in self.verdicts
        ]
        facts = {"seed of the blows": str(self.seed), **self.facts, "minutes": f"{self.seconds / 60:.1f}"}
        lines = [
            f"{level} {self.facts['config']}, {self.facts['place']}",
            "",
            f"**{self.verdict()}**",
            "",
            *[f"- {problem}" for problem in self.problems()],
            *([""] if self.problems() else []),
            *_table(COLUMNS, self.rows()),
            "",
            *_table(("seed", "compared", "steps", "lost", "goodput", "attempts", "causes"), runs),
            "",
            *_table(("", ""), list(facts.items())),
            "",
        ]
        if self.left_out:
            lines += ["Left out:", "", *[f"- `{name}`: {why}" for name, why in self.left_out.items()], ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        publish_json(folder / "report.json", self.as_json())
        publish(folder / "report.md", self.as_markdown().encode())

    def show(self) -> None:
        """Print it: tables of their own width on a terminal, plain lines elsewhere."""
        from rich.console import Console
        from rich.table import Table

        console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
        table = Table(box=None, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column)
        for row in self.rows():
            table.add_row(*row)
        console.print(table)
        for verdict in self.verdicts:
            console.print(f"seed {verdict.seed}: {verdict.compared}", markup=False)
        for problem in self.problems():
            console.print(f"PROBLEM: {problem}", markup=False)
        console.print(self.verdict(), markup=False)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]
