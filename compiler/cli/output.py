"""What the terminal sees: progress, tables, errors; or one JSON document with ``--json``."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ...errors import FewbitsError

#: Files and pipes have no width of their own.
PIPE_WIDTH = 120

console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH)
messages = Console(stderr=True)

#: Phases shorter than this leave no line behind.
SHORT_SECONDS = 0.05


class LiveProgress:
    """One line per phase with its time, and a bar with an estimate while samples go through."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.task: Any = None
        self.name = ""
        self.started = 0.0

    def phase(self, name: str) -> None:
        """A phase begins; the one before has ended."""
        self.finish()
        self.name, self.started = name, time.monotonic()
        self.task = self.bars.add_task(visible(name), total=None)

    def samples(self, done: int, total: int | None = None) -> None:
        """Steps of the present phase."""
        if self.task is not None:
            self.bars.update(self.task, completed=done, total=total)

    def finish(self) -> None:
        """The present phase has ended."""
        if self.task is None:
            return
        self.bars.remove_task(self.task)
        self.task = None
        seconds = time.monotonic() - self.started
        if seconds >= SHORT_SECONDS:
            messages.print(f"[green]✓[/] {visible(self.name)} [dim]{seconds:.1f} s[/]")


@contextmanager
def progress(as_json: bool) -> Iterator[Any]:
    """A progress listener for a verb; silent with ``--json``."""
    from ..progress import quiet

    if as_json:
        yield quiet
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=messages, transient=True) as bars:
        live = LiveProgress(bars)
        yield live
        live.finish()


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turns errors into a few lines (or a JSON document) and an exit status of 1."""
    try:
        yield
    except FewbitsError as error:
        if as_json:
            print_json({"error": error.as_dict()})
        else:
            print_error(error)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, BrokenPipeError):
        messages.print("interrupted; nothing was written", style="yellow")
        raise typer.Exit(130) from None
    except MemoryError:
        _internal("out of memory", as_json)
    except (typer.Exit, SystemExit):
        raise
    except Exception as error:  # the last resort: a defect, shown without a wall of text
        _internal(f"{type(error).__name__}: {error}", as_json)


def _internal(text: str, as_json: bool) -> None:
    lines = traceback.format_exc().splitlines()
    places = [line.strip() for line in lines if line.strip().startswith("File ")]
    error = FewbitsError(
        "internal",
        f"a defect of fewbits: {text[:500]}",
        where=places[-1] if places else None,
        hint="please report it with the model; `fewbits doctor` prints what to add",
    )
    if as_json:
        print_json({"error": error.as_dict()})
    else:
        print_error(error)
    raise typer.Exit(70) from None


def visible(text: str, *, lines: bool = False) -> str:
    """Text of a model for the terminal: no markup, no control characters.

    Line breaks stay with `lines`.
    """
    shown = (
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode()
        for c in text
    )
    return escape("".join(shown))


def print_error(error: FewbitsError) -> None:
    """An error as a person reads it, on standard error."""
    messages.print(
        f"[bold red]error[/] [dim]{escape(error.code)}[/] {visible(error.message, lines=True)}"
    )
    if error.where:
        messages.print(f"  [dim]where:[/] {visible(error.where, lines=True)}")
    if error.hint:
        messages.print(f"  [dim]hint:[/]  {visible(error.hint, lines=True)}")


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def print_table(
    title: str | None,
    columns: Iterable[str],
    rows: Iterable[Iterable[Any]],
    *,
    text: frozenset[str] = frozenset({"name", "layer", "operator", "note", "what"}),
) -> None:
    """A table; columns named in `text` are left-aligned, numbers right."""
    table = Table(
        title=None if title is None else visible(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    names = list(columns)
    for name in names:
        left = name in text
        table.add_column(
            name, justify="left" if left else "right", overflow="fold", no_wrap=not left
        )
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "[dim]–[/]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return visible(str(value))


Verb = Callable[..., None]
