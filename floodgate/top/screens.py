"""The screens: bots, one bot, one chat, campaigns, dead letters. Each shows a part of the latest picture."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from floodgate.broker.admission.contract import ChatExplanation
from floodgate.broker.errors import InvalidParamsError, StateError
from floodgate.broker.messages.job import Priority
from floodgate.letters.criteria import chat_of
from floodgate.overview.picture import Overview
from floodgate.top.lines import (
    bot_cells,
    bot_lines,
    campaign_cells,
    campaign_lines,
    chat_cells,
    chat_lines,
    chats,
    letter_cells,
    letters_lines,
    process_cells,
    process_lines,
    process_summary,
)
from floodgate.top.live import LiveScreen
from floodgate.top.widgets import ChatInput, Column

_PRIORITIES: Final = [Column(priority, max(8, len(priority)), True) for priority in Priority]


class BotsScreen(LiveScreen):
    """All bots, and more about the one under the cursor."""

    COLUMNS: ClassVar[list[Column]] = [
        *(Column("bot", 11), Column("sent a second", 16), *_PRIORITIES),
        *(Column("updates", 7, True), Column("dead", 6, True), Column("state", 6)),
    ]
    OPENS = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.back", "back", show=False),
        Binding("p", "pause", "pause"),
        Binding("r", "resume", "resume"),
        Binding("c", "campaigns", "campaigns"),
        Binding("d", "letters", "letters"),
        Binding("w", "processes", "processes"),
        Binding("X", "cancel", "cancel jobs"),
        Binding("q", "app.quit", "quit"),
    ]

    def draw(self, overview: Overview) -> None:
        """Draw the bots."""
        self.rows.show({bot.name: bot_cells(bot) for bot in overview.bots})
        self.on_data_table_row_highlighted()

    def on_data_table_row_highlighted(self) -> None:
        """Describe the bot under the cursor."""
        if self.top.overview is not None and (bot := self.top.bot(self.rows.chosen)) is not None:
            self.lines.update(bot_lines(bot).append_text(process_summary(self.top.overview)))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open a bot."""
        self.app.push_screen(BotScreen(str(event.row_key.value)))

    def action_pause(self) -> None:
        """Pause the bot."""
        self.operate(lambda operations, bot: operations.pause(bot, None))

    def action_resume(self) -> None:
        """Resume the bot."""
        self.operate(lambda operations, bot: operations.resume(bot, None))

    def action_cancel(self) -> None:
        """Cancel the bot's jobs."""
        self.operate(lambda operations, bot: operations.cancel_jobs(bot, self.top.ask))

    def action_campaigns(self) -> None:
        """Show the bot's campaigns."""
        if (bot := self.rows.chosen) is not None:
            self.app.push_screen(CampaignsScreen(bot))

    def action_processes(self) -> None:
        """Show all processes."""
        self.app.push_screen(ProcessesScreen("processes"))

    def action_letters(self) -> None:
        """Show the bot's dead letters."""
        if (bot := self.rows.chosen) is not None:
            self.app.push_screen(LettersScreen(bot))


class BotScreen(LiveScreen):
    """A bot's longest lines and its pauses."""

    COLUMNS: ClassVar[list[Column]] = [Column("chat", 20), *_PRIORITIES, Column("paused", 26)]
    OPENS = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "pause chat"),
        Binding("r", "resume", "resume chat"),
        Binding("slash", "find", "find a chat", key_display="/"),
    ]

    def __init__(self, bot: str) -> None:
        super().__init__(f"bot {bot}: longest lines and pauses")
        self._bot = bot

    def draw(self, overview: Overview) -> None:
        """Draw the chats and what is known of the bot."""
        if (bot := self.top.bot(self._bot)) is not None:
            self.rows.show({chat: chat_cells(chat, waits) for chat, waits in chats(bot).items()})
            self.lines.update(bot_lines(bot))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open a chat."""
        self._open(str(event.row_key.value))

    def action_pause(self) -> None:
        """Pause the chat."""
        self.operate(lambda operations, chat: operations.pause(self._bot, chat))

    def action_resume(self) -> None:
        """Resume the chat."""
        self.operate(lambda operations, chat: operations.resume(self._bot, chat))

    def action_find(self) -> None:
        """Ask for a chat and open it."""
        self.app.push_screen(ChatInput(), self._found)

    def _found(self, text: str | None) -> None:
        try:
            chat = chat_of(text or None)
        except InvalidParamsError as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            if chat is not None:
                self._open(chat)

    def _open(self, chat: str) -> None:
        self.app.push_screen(ChatScreen(self._bot, chat))


class ChatScreen(LiveScreen):
    """Why a chat waits."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "pause chat"),
        Binding("r", "resume", "resume chat"),
    ]

    def __init__(self, bot: str, chat: str) -> None:
        super().__init__(f"bot {bot}, chat {chat}")
        self._bot = bot
        self._chat = chat
        self._asking = False

    def draw(self, overview: Overview) -> None:
        """Ask why the chat waits, and say it once that is known."""
        if not self._asking:
            self._asking = self.top.load(lambda operations: operations.explain(self._bot, self._chat), self._know)

    def _know(self, why: ChatExplanation | StateError) -> None:
        self._asking = False
        self.lines.update(chat_lines(why) if isinstance(why, ChatExplanation) else Text(str(why)))

    def action_pause(self) -> None:
        """Pause the chat."""
        self.top.operate(lambda operations: operations.pause(self._bot, self._chat))

    def action_resume(self) -> None:
        """Resume the chat."""
        self.top.operate(lambda operations: operations.resume(self._bot, self._chat))


class CampaignsScreen(LiveScreen):
    """A bot's latest campaigns."""

    COLUMNS: ClassVar[list[Column]] = [
        *(Column("campaign", 13), Column("state", 9), Column("done", 15)),
        *(Column("sent", 7, True), Column("refused", 7, True), Column("left", 7, True), Column("ends in", 7)),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "pause"),
        Binding("r", "resume", "resume"),
        Binding("C", "cancel", "cancel campaign"),
    ]

    def __init__(self, bot: str) -> None:
        super().__init__(f"bot {bot}: latest campaigns")
        self._bot = bot

    def draw(self, overview: Overview) -> None:
        """Draw the campaigns."""
        if (bot := self.top.bot(self._bot)) is None:
            return
        campaigns = {each.name: each for each in bot.campaigns or ()}
        self.rows.show({name: campaign_cells(each) for name, each in campaigns.items()})
        self.lines.update(campaign_lines(bot, campaigns.get(self.rows.chosen or "")))

    def action_pause(self) -> None:
        """Pause the campaign."""
        self.operate(lambda operations, name: operations.pause_campaign(name))

    def action_resume(self) -> None:
        """Resume the campaign."""
        self.operate(lambda operations, name: operations.resume_campaign(name))

    def action_cancel(self) -> None:
        """Cancel the campaign."""
        self.operate(lambda operations, name: operations.cancel_campaign(name, self.top.ask))


class ProcessesScreen(LiveScreen):
    """All processes that report to the state store."""

    COLUMNS: ClassVar[list[Column]] = [
        *(Column("process", 9), Column("machine and pid", 20), Column("version", 8), Column("up", 7)),
        *(Column("holds", 5), Column("partitions", 18)),
    ]

    def draw(self, overview: Overview) -> None:
        """Draw the processes."""
        self.rows.show({each.id: process_cells(each) for each in overview.processes})
        self.on_data_table_row_highlighted()

    def on_data_table_row_highlighted(self) -> None:
        """Name the partitions of the process under the cursor."""
        if self.top.overview is not None:
            self.lines.update(process_lines(self.top.overview, self.rows.chosen))


class LettersScreen(LiveScreen):
    """A bot's dead letters by reason, as they were when the screen was opened."""

    COLUMNS: ClassVar[list[Column]] = [Column("reason", 30), Column("letters", 9, True)]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "count", "update"),
        Binding("D", "drop", "drop letters"),
    ]

    def __init__(self, bot: str) -> None:
        super().__init__(f"bot {bot}: dead letters by reason")
        self._bot = bot
        self._counts: Counter[str] | None = None

    def on_mount(self) -> None:
        """Count the letters."""
        self.action_count()

    def action_count(self) -> None:
        """Count the letters anew."""
        self.top.load(lambda operations: operations.letters(self._bot), self._counted)

    def _counted(self, counts: Counter[str]) -> None:
        self._counts = counts
        self.rows.show({reason: letter_cells(reason, number) for reason, number in counts.most_common()})
        self.on_screen_resume()

    def draw(self, overview: Overview) -> None:
        """Say how many letters there are, and what to do with them."""
        if (bot := self.top.bot(self._bot)) is not None:
            self.lines.update(letters_lines(bot, self._counts))

    def action_drop(self) -> None:
        """Drop the letters of a reason."""
        self.operate(
            lambda operations, reason: operations.drop_letters(self._bot, reason, self.top.ask), self.action_count
        )
