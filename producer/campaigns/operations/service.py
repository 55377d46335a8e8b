"""The operations on campaigns, as programs, the command line and the gateway use them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeVar

from floodgate.broker.errors import CampaignError, ClosedError
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.job import Job
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.producer.campaigns.audience.queries import AudienceQuery, read_query
from floodgate.producer.campaigns.audience.rows import AudienceFile, AudienceRow, Candidate, read_file, read_rows
from floodgate.producer.campaigns.definition import Definition, parse_definition, read_definition, read_fields
from floodgate.producer.campaigns.operations.checks import CheckReport, check
from floodgate.producer.campaigns.operations.corrections import delete_sent, edit_sent
from floodgate.producer.campaigns.operations.edits import edit
from floodgate.producer.campaigns.operations.retries import retry, retry_choice
from floodgate.producer.campaigns.operations.samples import sample_job
from floodgate.producer.campaigns.responses.results import CampaignResults, results_of
from floodgate.producer.campaigns.responses.store import ResponseStore
from floodgate.producer.campaigns.sending.pace import CampaignPace, pace_of
from floodgate.producer.campaigns.sending.progress import CampaignProgress, progress_of
from floodgate.producer.campaigns.sending.reports import ReportStore
from floodgate.producer.campaigns.states import CampaignState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import Campaign, Recipient, RefusedRows
from floodgate.producer.campaigns.storage.store import CampaignStore

# Rows between two calls of an ``on_rows``.
ON_ROWS_EVERY: Final = 1000

OnRows = Callable[[int], None]
Audience = Path | AudienceFile | AudienceQuery | Iterable[Mapping[str, Any]]
T = TypeVar("T")


class Campaigns:
    """Creates, steers and accounts for campaigns. A process of ``floodgate campaigns run`` sends them.

    Safe to use from any thread, and from processes forked after it was created. Nothing is opened before the first
    operation. Every operation raises ``StateUnavailableError`` if the database is unavailable, and ``CampaignError`` if
    there is no such campaign or its state does not allow the operation.

    Args:
        bot: the bot of campaigns whose definition names none; None means the settings' default bot.
    """

    def __init__(self, settings: Settings, bot: str | None = None) -> None:
        self._settings = settings
        self._bot = bot or settings.default_bot
        database = Database(settings)
        self._store = CampaignStore(database)
        self._reports = ReportStore(database)
        self._responses = ResponseStore(database)
        self._closed = False

    def create(
        self,
        definition: Definition | Mapping[str, Any] | Path,
        audience: Audience | None = None,
        *,
        exclude: Iterable[Path | int | str] = (),
        exclude_campaigns: Sequence[str] = (),
        bot: str | None = None,
        on_rows: OnRows | None = None,
    ) -> Campaign:
        """Create a campaign, import its audience and freeze it; without an audience, create a draft. Sends nothing.
        Constant memory. Replaces a draft of the same name and bot, which a call that failed has left.

        Chats that come twice, have unsubscribed or are known to be unreachable are left out: see :meth:`refused`.

        Args:
            definition: a TOML file, or its fields.
            audience: a CSV or JSON Lines file, a SQL query, or a mapping of fields for each recipient.
            exclude: chats that are left out, or files that contain them.
            exclude_campaigns: the bot's campaigns whose recipients are left out if they got the message, or may have.
            on_rows: called with the number of rows read, every thousand rows.

        Raises:
            CampaignError: the definition or the audience is wrong, or there is a campaign of this name.
            InvalidParamsError: an excluded chat is neither an id nor an @name.
        """
        wanted = _definition(definition)
        rows = None if audience is None else _begun(_rows(audience, wanted.chat_field))
        excluded = _begun(_excluded(exclude, wanted.chat_field))
        campaign = self._store.create(wanted, bot or wanted.bot or self._bot)
        return campaign if rows is None else self._import(campaign, rows, excluded, exclude_campaigns, on_rows)

    def import_audience(
        self,
        name: str,
        audience: Audience,
        *,
        exclude: Iterable[Path | int | str] = (),
        exclude_campaigns: Sequence[str] = (),
        on_rows: OnRows | None = None,
    ) -> Campaign:
        """Import the audience of a draft and freeze it. An import that fails leaves a draft, and may be made again.

        Raises:
            CampaignError: the audience is wrong.
            InvalidParamsError: an excluded chat is neither an id nor an @name.
        """
        campaign = self._store.get(name)
        rows = _begun(_rows(audience, campaign.definition.chat_field))
        excluded = _begun(_excluded(exclude, campaign.definition.chat_field))
        return self._import(campaign, rows, excluded, exclude_campaigns, on_rows)

    def check(self, name: str, *, on_rows: OnRows | None = None) -> CheckReport:
        """Render the message of every recipient, and report what Telegram would refuse."""
        definition = self._store.get(name).definition
        return check(definition, self._counted(self._store.recipients(name), on_rows))

    def start(self, name: str, *, report_to: int | str | None = None, on_rows: OnRows | None = None) -> Campaign:
        """Check a campaign and start it.

        Args:
            report_to: the chat in which one message shows the progress, instead of the definition's.

        Raises:
            CampaignError: the check found errors; names the most frequent.
            InvalidParamsError: ``report_to`` is neither an id nor an @name.
        """
        chat = None if report_to is None else chat_key(report_to)
        if findings := self.check(name, on_rows=on_rows).findings:
            raise CampaignError(
                f"{name} does not start: {findings[0].why} Recipients with this error: {findings[0].recipients}. "
                f"`floodgate campaigns check {name}` lists all errors."
            )
        if chat is not None:
            self._reports.direct(self._store.get(name), chat)
        return self._store.transition(name, CampaignState.RUNNING)

    def sample(self, name: str, to: int | str, *, recipient: int | str | None = None) -> Job:
        """Make a job that sends to the chat ``to`` what a recipient gets, the first by default. Enqueue it to look at
        the message; the recipient gets it all the same.

        Raises:
            JobError: a chat is neither an id nor an @name, or Telegram would refuse the call.
        """
        return sample_job(self._store, self._settings, name, to, recipient)

    def edit(
        self, name: str, definition: Definition | Mapping[str, Any] | Path, *, on_rows: OnRows | None = None
    ) -> Campaign:
        """Change the content, the rules, the schedule or the weight for the recipients who have not got their message.
        Their messages are checked first; what waits in RabbitMQ is taken back within a second, and sent as changed.

        Raises:
            CampaignError: the check found errors, or the definition changes what cannot change.
        """
        return edit(self._store, name, _definition(definition), lambda rows: self._counted(rows, on_rows))

    def retryable(self, name: str, *, states: Iterable[str] = (), reason: str | None = None) -> int:
        """Return how many recipients :meth:`retry` would let wait again."""
        return sum(1 for _ in retry_choice(states, reason).of(self._store, name))

    def retry(self, name: str, *, states: Iterable[str] = (), reason: str | None = None) -> int:
        """Let recipients wait again who failed or were unreachable. Return how many.

        Args:
            states: ``failed``, ``unreachable`` or ``uncertain``; by default, the first two.
            reason: a text or a regular expression that the recipient's error contains.

        Raises:
            CampaignError: neither states nor a reason are given, or such recipients cannot be tried again.
        """
        return retry(self._store, name, retry_choice(states, reason))

    def pause(self, name: str) -> Campaign:
        """Pause a campaign. What waits in RabbitMQ is taken back within a second."""
        return self._store.transition(name, CampaignState.PAUSED)

    def resume(self, name: str) -> Campaign:
        """Resume a campaign that was paused, or that a rule stopped."""
        if (state := self._store.get(name).state) in (CampaignState.READY, CampaignState.DONE):
            raise CampaignError(f"The campaign {name!r} is {state}, not paused or stopped, so it cannot be resumed.")
        return self._store.transition(name, CampaignState.RUNNING)

    def cancel(self, name: str) -> Campaign:
        """End a campaign for good. Recipients who have not got their message will not get it."""
        return self._store.transition(name, CampaignState.CANCELLED)

    def edit_sent(self, name: str, content: Mapping[str, Any] | Path, *, on_rows: OnRows | None = None) -> Campaign:
        """Edit the messages that a campaign has sent. Returns the campaign that does it, which runs; ``refused`` says
        which messages it leaves out.

        Args:
            content: the fields of a content that change, of a definition with the same variants, or a TOML file.
        """
        changed = read_fields(content) if isinstance(content, Path) else content
        source = str(content) if isinstance(content, Path) else "The content"
        edits = edit_sent(self._store, name, changed, source, lambda rows: self._counted(rows, on_rows))
        return self._store.transition(edits.name, CampaignState.RUNNING)

    def delete_sent(self, name: str) -> Campaign:
        """Delete the messages that a campaign has sent. Returns the campaign that does it, which runs; ``refused`` says
        which messages it leaves out."""
        return self._store.transition(delete_sent(self._store, name).name, CampaignState.RUNNING)

    def progress(self, name: str) -> CampaignProgress:
        """Return a campaign's state, what became of its recipients, and when it is expected to be done."""
        return progress_of(self._store, name, self._settings)

    def list(self, bot: str | None = None, *, most: int | None = None, skip: int = 0) -> Sequence[CampaignProgress]:
        """Return the progress of the ``most`` latest campaigns, or of a bot's, the latest first; None means all. The
        first ``skip`` are left out."""
        found = [each.name for each in self._store.all() if bot in (None, each.bot)][skip:]
        return [self.progress(name) for name in found[:most]]

    def pace(self, name: str) -> CampaignPace:
        """Return how many recipients ended when. Reads the whole audience."""
        return pace_of(self._store, name)

    def find_recipient(self, name: str, chat: int | str) -> Recipient | None:
        """Return a recipient; None if the campaign does not have it.

        Raises:
            InvalidParamsError: the chat is neither an id nor an @name.
        """
        return self._store.find_recipient(name, chat_key(chat))

    def recipients(self, name: str) -> Iterator[Recipient]:
        """Yield all recipients in the order of the audience, in constant memory."""
        return self._store.recipients(name)

    def refused(self, name: str) -> Sequence[RefusedRows]:
        """Return the rows of the audience that were not taken, by reason, the most frequent first."""
        return self._store.refused(name)

    def results(self, name: str) -> CampaignResults:
        """Return how the variants did, by the responses of their recipients."""
        return results_of(self._responses, self._store.get(name))

    def unsubscribe(self, chat: int | str, *, bot: str | None = None) -> None:
        """Leave a chat out of all campaigns of a bot: of later audiences, and where it still waits.

        Raises:
            InvalidParamsError: the chat is neither an id nor an @name.
        """
        self._store.unsubscribe(bot or self._bot, chat_key(chat))

    def close(self) -> None:
        """Close the database, and end imports and checks that are under way. Safe to call twice."""
        self._closed = True
        self._store.close()

    def _import(
        self,
        campaign: Campaign,
        rows: Iterator[AudienceRow],
        excluded: Iterator[str],
        earlier: Sequence[str],
        on_rows: OnRows | None,
    ) -> Campaign:
        with closing(open_store(self._settings, create=False)) as state:
            return self._store.import_audience(
                campaign.name,
                self._counted(rows, on_rows),
                excluded=excluded,
                earlier=earlier,
                unreachable=partial(state.unreachable_among, campaign.bot),
            )

    def _counted(self, rows: Iterable[T], on_rows: OnRows | None) -> Iterator[T]:
        for number, row in enumerate(rows, 1):
            if self._closed:
                raise ClosedError("The campaigns were closed in the meantime.")
            if on_rows is not None and number % ON_ROWS_EVERY == 0:
                on_rows(number)
            yield row


def _definition(given: Definition | Mapping[str, Any] | Path) -> Definition:
    match given:
        case Definition():
            return given
        case Path():
            return read_definition(given)
        case _:
            return parse_definition(given, "The definition")


def _rows(audience: Audience, chat_field: str) -> Iterator[AudienceRow]:
    match audience:
        case Path():
            return read_file(audience, chat_field)
        case AudienceFile():
            return audience.rows(chat_field)
        case AudienceQuery():
            return read_query(audience, chat_field)
        case _:
            return read_rows(audience, chat_field)


def _begun(rows: Iterator[T]) -> Iterator[T]:
    """Read the first row now, so that a file that cannot be read leaves no draft behind."""
    return chain(list(islice(rows, 1)), rows)


def _excluded(exclude: Iterable[Path | int | str], chat_field: str) -> Iterator[str]:
    for each in exclude:
        if isinstance(each, Path):
            yield from (row.chat for row in read_file(each, chat_field) if isinstance(row, Candidate))
        else:
            yield chat_key(each)
