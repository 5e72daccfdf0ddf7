"""What a person sees while long work runs: bars with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from medical_vqa.runtime import ProgressCallback, StageCallback


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that leaves long lines unbroken; `quiet` prints nothing."""
    return Console(stderr=stderr, soft_wrap=True, quiet=quiet)


@contextmanager
def counting(label: str, unit: str, *, enabled: bool = True) -> Iterator[ProgressCallback]:
    """A progress bar on stderr for counted work, on a terminal and where `enabled`; yields its callback."""
    with _bar(console(stderr=True, quiet=not enabled)) as bar:
        task = bar.add_task(label, total=None, note=unit)

        def count(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield count


@contextmanager
def stages(*, enabled: bool = True) -> Iterator[StageCallback]:
    """One progress bar on stderr per named stage, on a terminal and where `enabled`; yields their callback."""
    with _bar(console(stderr=True, quiet=not enabled)) as bar:
        tasks: dict[str, int] = {}

        def count(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, note="")
            bar.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield count


class TrainingBar:
    """Shows a training run: steps with rate and time left, and a line for every validation score."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = _bar(console)
        self._task = self._bar.add_task("training", total=None, note="")

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, *, total_steps: int, done_steps: int, device: str) -> None:
        """Training starts, or resumes."""
        resumed = f", resumed after step {done_steps:,}" if done_steps else ""
        self._console.print(f"{total_steps:,} steps on {device}{resumed}")
        self._bar.reset(self._task, total=total_steps, completed=done_steps)

    def step(self, *, done: int, epoch: int, loss: float, questions_per_second: float) -> None:
        """Some steps were taken."""
        note = f"epoch {epoch}, loss {loss:.3f}, {questions_per_second:,.0f} questions/s"
        self._bar.update(self._task, completed=done, note=note)

    def score(self, *, epoch: int, train_loss: float, scores: Mapping[str, float], best: bool) -> None:
        """An epoch was scored on validation."""
        values = "  ".join(f"{name.upper()} {100 * value:5.1f}" for name, value in scores.items())
        star = "  [green]best so far[/green]" if best else ""
        self._console.print(f"epoch {epoch:3d}  loss {train_loss:.3f}  validation {values}{star}", highlight=False)


def counts_table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """A table whose first two columns are words and whose others are numbers."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=console.quiet or not (console.is_terminal or console.is_jupyter),
    )
