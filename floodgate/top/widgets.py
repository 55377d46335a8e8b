"""Widgets: a table that keeps its cursor while its rows change, and questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Final, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from floodgate.top.lines import Cells

PATIENCE: Final = timedelta(minutes=1)
"""How long a question waits for an answer, which then is no."""


class Column(NamedTuple):
    """A column of a table: its title, its width, and whether its cells are numbers."""

    title: str
    width: int
    numbers: bool = False


class Rows(DataTable[Text]):
    """A table of keyed rows. Its cursor stays on its row.

    Args:
        opens: whether Enter opens a row.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "open", show=True)]

    def __init__(self, columns: Sequence[Column], *, opens: bool) -> None:
        super().__init__(cursor_type="row", cell_padding=1)
        self._opens = opens
        self._keys = [column.title for column in columns]
        for title, width, numbers in columns:
            self.add_column(Text(title, justify="right" if numbers else "left"), key=title, width=width)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide Enter where it opens nothing."""
        return self._opens or action != "select_cursor"

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor; None without rows."""
        if not self.row_count:
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value

    def show(self, rows: Mapping[str, Cells]) -> None:
        """Show these rows, in this order."""
        if [key.value for key in self.rows] != list(rows):
            self._replace(rows)
            return
        for row, cells in rows.items():
            for column, cell in zip(self._keys, cells, strict=True):
                if self.get_cell(row, column) != cell:
                    self.update_cell(row, column, cell)

    def _replace(self, rows: Mapping[str, Cells]) -> None:
        chosen = self.chosen
        self.clear()
        for row, cells in rows.items():
            self.add_row(*cells, key=row)
        if chosen is not None and chosen in rows:
            self.move_cursor(row=list(rows).index(chosen))


class Question(ModalScreen[bool]):
    """Asks before something that cannot be undone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape", "answer(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self._question))
            yield Static(Text("y: yes    n: no", style="bold"))

    def on_mount(self) -> None:
        """Give up in time."""
        self.set_timer(PATIENCE.total_seconds(), lambda: self.dismiss(False))

    def action_answer(self, answer: bool) -> None:
        """Answer it."""
        self.dismiss(answer)


class ChatInput(ModalScreen[str]):
    """Asks for a chat."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss('')", "back")]

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static("Chat id or @name:")
            yield Input()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return what was written."""
        self.dismiss(event.value.strip())
