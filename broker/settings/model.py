"""Settings: read once from ``FLOODGATE_*`` and ``.env``, validated, then passed in.

Entry points call ``load_settings()``. It turns pydantic's report into one :class:`SettingsError` that names the
variables and the fix. Importing this module does not read the environment.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as ParseError

from floodgate.broker.errors import InvalidParamsError, SettingsError, UnknownBotError, UnknownMethodError
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.method_table import BotApiMethod, Charge
from floodgate.broker.messages.methods import canonical_method, classed_method
from floodgate.broker.settings import environment
from floodgate.broker.settings.dead_letters import DeadLetterSettings
from floodgate.broker.settings.gateway import GatewaySettings
from floodgate.broker.settings.listen_address import ListenAddress
from floodgate.broker.settings.redis_address import RedisAddress
from floodgate.broker.settings.updates import UpdateSettings
from floodgate.broker.settings.web import WebSettings

DEFAULT_BOT: Final = "default"
TEST_SUFFIX: Final = "/test"
"""The end of a token of Telegram's test environment, as in the paths of its calls: ``/bot<token>/test/<method>``."""
_TOKEN: Final = re.compile(rf"\d{{3,20}}:[A-Za-z0-9_-]{{30,64}}({TEST_SUFFIX})?")
_BOT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
# RabbitMQ closes a channel that leaves a message unacknowledged for longer (rabbitmq/rabbitmq.conf has the same value).
CONSUMER_TIMEOUT_SECONDS: Final = 30 * 60
MOST_PARTITIONS: Final = 1024


def default_state_url() -> str:
    """Return the SQLite URL of ``floodgate/state.db`` in the user's state directory (XDG), without creating it."""
    return f"sqlite:///{_state_home()}/floodgate/state.db"


def default_campaigns_url() -> str:
    """Return the SQLite URL of ``floodgate/campaigns.db`` in the user's state directory, without creating it."""
    return f"sqlite:///{_state_home()}/floodgate/campaigns.db"


def default_spool_url() -> str:
    """Return the path of ``floodgate/spool`` in the user's state directory, without creating it."""
    return f"{_state_home()}/floodgate/spool"


def _state_home() -> str:
    return os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")


class ChatLimits(BaseModel):
    """Limits for one chat that differ from its bot's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chat_per_second: float | None = Field(None, gt=0)
    group_per_minute: float | None = Field(None, gt=0)


class BotLimits(ChatLimits):
    """Limits for one bot that differ from the general ones."""

    bot_per_second: float | None = Field(None, gt=0)
    paid_per_second: float | None = Field(None, gt=0)


class Limits(BaseModel):
    """Telegram's published limits. Admission keeps a margin below them: see ``broker/admission/policy.py``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(
        True, description="`false` sends without limits; only for measurements against a fake Bot API."
    )
    bot_per_second: float = Field(30, gt=0, description="Messages a bot may send per second.")
    paid_per_second: float = Field(
        1000, gt=0, description="Messages with `allow_paid_broadcast`, which cost Stars, a bot may send per second."
    )
    chat_per_second: float = Field(1, gt=0, description="Messages one chat may get per second.")
    group_per_minute: float = Field(
        20, gt=0, description="Messages, edits and new topics one group or channel may get in any 60 seconds."
    )
    bots: dict[str, BotLimits] = Field(
        default_factory=dict,
        description='Different limits for some bots, as JSON: `{"news": {"bot_per_second": 50}}`. Limits not named '
        "keep their value.",
    )
    chats: dict[str, dict[str, ChatLimits]] = Field(
        default_factory=dict,
        description='Other limits for some chats, as JSON: `{"news": {"-1001234567890": {"group_per_minute": 10}}}`.',
    )

    @field_validator("chats")
    @classmethod
    def _chat_keys(cls, value: dict[str, dict[str, ChatLimits]]) -> dict[str, dict[str, ChatLimits]]:
        try:
            return {bot: {chat_key(chat): own for chat, own in chats.items()} for bot, chats in value.items()}
        except InvalidParamsError as error:
            raise ValueError(str(error).rstrip(".")) from None

    def for_bot(self, bot: str) -> Limits:
        """Return the limits of one bot."""
        special = self.bots.get(bot)
        return self.model_copy(update=special.model_dump(exclude_none=True)) if special else self


class Settings(BaseSettings):
    """All settings of all roles. The variable is `FLOODGATE_` and the name in upper case; `__` separates levels."""

    model_config = SettingsConfigDict(
        env_prefix="FLOODGATE_",
        env_nested_delimiter="__",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    rabbitmq_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description="AMQP URL of RabbitMQ 4.0 or newer. Several, separated by commas, are the nodes of a cluster: "
        "each process tries them in an order of its own, and leaves a node that does not answer for the next. "
        "`amqps://` verifies the server's certificate.",
    )
    rabbitmq_management_url: SecretStr | None = Field(
        None,
        description="URL of RabbitMQ's management API, such as `http://operator:password@host:15672`; several, "
        "separated by commas, are tried in turn. With it, `floodgate doctor` and `floodgate topology verify` check a "
        "cluster's replicas. The account needs the tag `monitoring`.",
    )
    state_url: SecretStr = Field(
        default_factory=lambda: SecretStr(default_state_url()),
        description="URL of the state store: `sqlite:////absolute/path.db` for any number of processes on one machine, "
        "`redis://…` for many machines, `redis+sentinel://host1,host2,host3/name` for a primary that Sentinels name, "
        "`redis+cluster://host1,host2,host3` for a Redis Cluster (`rediss` for TLS): see docs/operating.md. Defaults "
        "to a file in the user's state directory.",
    )
    redis_wait_replicas: int = Field(
        0,
        ge=0,
        le=10,
        description="After each batch of decisions, a process waits until this many replicas of Redis have it (its "
        "command `WAIT`), so that a replica that is promoted is less likely to lack any. With 0, the default, it does "
        "not wait. Not used on a Redis Cluster.",
    )
    redis_wait_seconds: float = Field(
        0.1,
        gt=0,
        le=5,
        description="How long that wait lasts at most. After it, sending goes on, and the log says so once a minute.",
    )
    campaigns_url: SecretStr = Field(
        default_factory=lambda: SecretStr(default_campaigns_url()),
        description="URL of the campaigns' database: `sqlite:////absolute/path.db` on one machine, "
        "`postgresql+psycopg://…` for many. Defaults to a file in the user's state directory.",
    )
    campaigns_response_hours: float = Field(
        0,
        ge=0,
        le=90 * 24,
        description="For how long handler workers record how the recipients of a campaign respond, counted from each "
        "recipient's message. With 0, the default, they record only who unsubscribes.",
    )
    bot_token: SecretStr | None = Field(
        None,
        description=f"Token of one bot, named `{DEFAULT_BOT}`. For several bots use `FLOODGATE_BOTS`. A token of "
        f"Telegram's test environment ends in `{TEST_SUFFIX}`.",
    )
    bots: dict[str, SecretStr] = Field(
        default_factory=dict, description='JSON object of bot name to token: `{"news": "123:ABC…"}`.'
    )
    telegram_api_url: str = Field(
        "https://api.telegram.org",
        description="Root URL of the Bot API; change it to use a local Bot API server or the fake.",
    )
    telegram_proxy: SecretStr | None = Field(
        None,
        description="URL of an HTTP proxy for calls to the Bot API, `http://user:password@host:3128`. Defaults to "
        "none; the environment's proxy variables are ignored.",
    )
    partitions: int = Field(
        32,  # sustains 30/s where answers take 0.5 s, uneven hashing included: docs/performance.md
        ge=1,
        le=MOST_PARTITIONS,
        description="Number of queues per bot and priority, and so the number of concurrent sends. The default "
        "suffices for Bot API answers within half a second; for slower ones use 50 per second of answer time. It must "
        "be the same in every process: see docs/operating.md for how to change it.",
    )
    update_partitions: int = Field(
        32,
        ge=1,
        le=MOST_PARTITIONS,
        description="Number of queues for updates per bot. A worker handles FLOODGATE_UPDATES__WINDOW updates of each "
        "at once, and at most as many workers as queues share a bot. It must be the same in every process: see "
        "docs/operating.md for how to change it.",
    )
    limits: Limits = Field(default_factory=Limits, description="Telegram's limits.")
    methods: dict[str, Charge] = Field(
        default_factory=dict,
        description="Classes of Bot API methods that are newer than Floodgate, or corrections, as JSON: "
        '`{"sendHologram": "message"}`. A class is `message`, `edit`, `action`, `typing`, `answer` or `free`: see '
        "docs/clients.md.",
    )
    coalesce_edits: bool = Field(
        False,
        description="Whether a newer edit of a message supersedes one by the same method that still waits: see "
        "docs/clients.md. Set it for the workers, and for clients and gateways.",
    )

    call_timeout_seconds: float = Field(
        30,
        gt=0,
        le=600,
        description="Time-out of a Bot API call; a call with files gets extra time for their size at 100 kB/s. After "
        "the time-out the outcome is unknown.",
    )
    lease_margin_seconds: float = Field(
        5,
        gt=0,
        le=600,
        description="How long after a call's time-out another worker may take over its job.",
    )
    hold_seconds: float = Field(
        30,
        gt=0,
        le=300,
        description="How long a worker holds a job while its bot is paused, before the job returns to its queue.",
    )
    max_attempts: int = Field(
        8, ge=1, le=100, description="Maximum number of calls for one job before it is dead-lettered."
    )
    max_age_seconds: float = Field(
        86_400,
        gt=0,
        description="Age after which a job that fails is dead-lettered instead of retried.",
    )
    ledger_seconds: float = Field(
        7 * 86_400,
        gt=0,
        description="How long the ledger remembers that a job was sent or given up, so that it is not sent twice.",
    )
    result_seconds: float = Field(
        6 * 3600,
        gt=0,
        description="How long the result of a sent job, and Telegram's error for a dead one, is available; at most "
        "`FLOODGATE_LEDGER_SECONDS`. Results take most of the space in the state store.",
    )
    unreachable_seconds: float = Field(
        86_400,
        ge=0,
        description="How long a chat that blocked the bot, or no longer exists, is skipped unless an update comes from "
        "it. `0` tries it every time.",
    )
    shutdown_seconds: float = Field(
        40,
        gt=0,
        description="How long after SIGTERM a worker may finish calls in flight. Must exceed "
        "`FLOODGATE_CALL_TIMEOUT_SECONDS`.",
    )

    heartbeat_seconds: int = Field(
        10,
        ge=2,
        le=600,
        description="AMQP heartbeat interval. RabbitMQ closes the connection of a process that has been silent for two "
        "to three times as long, and gives its partitions to others.",
    )
    silence_timeout_seconds: float = Field(
        5,
        gt=0,
        le=600,
        description="How long a node of RabbitMQ may leave questions unanswered before a process leaves it for the "
        "next address: see docs/operating.md.",
    )
    connect_timeout_seconds: float = Field(
        5, gt=0, le=120, description="Time-out of one connection attempt to RabbitMQ, with name resolution and TLS."
    )
    publish_patience_seconds: float = Field(
        0,
        ge=0,
        le=600,
        description="How long a client or the gateway waits for a lost connection to RabbitMQ before it refuses a job "
        "with `NotConnectedError`. With 0 it refuses jobs immediately, starting one second after the loss. A job that "
        "was already written still waits for `FLOODGATE_CONFIRM_TIMEOUT_SECONDS`, since it may have been accepted.",
    )
    confirm_timeout_seconds: float = Field(
        30,
        gt=0,
        le=600,
        description="How long an enqueue waits for RabbitMQ's confirm before it raises an error. With several "
        "addresses, what is not confirmed after a third of this time is published again at the next one.",
    )
    blocked_timeout_seconds: float = Field(
        60,
        gt=0,
        le=3600,
        description="How long a publisher waits during a memory or disk alarm of RabbitMQ before it raises an error.",
    )
    publish_window: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Maximum number of published and unconfirmed jobs per process. Beyond it, enqueueing waits.",
    )

    spool_url: str = Field(
        default_factory=default_spool_url,
        description="Where uploads wait for their worker: a folder, or an fsspec URL such as `s3://bucket/floodgate`. "
        "All clients, gateways and workers must be able to reach it. Defaults to a folder in the user's state "
        "directory.",
    )
    spool_seconds: float = Field(
        7 * 86_400,
        gt=0,
        description="How long the upload of an unsent job is kept, counted from when the job is due. A dead letter "
        "with files can be replayed for that long.",
    )
    dead_letters: DeadLetterSettings = Field(default_factory=DeadLetterSettings, description="Dead letters.")
    gateway: GatewaySettings = Field(default_factory=GatewaySettings, description="The gateway.")
    updates: UpdateSettings = Field(default_factory=UpdateSettings, description="Receiving and handling updates.")
    web: WebSettings = Field(default_factory=WebSettings, description="The web pages.")

    metrics_address: str | None = Field(
        None,
        description="Where this process serves its metrics for Prometheus, under `/metrics`: `host:port`, or a port "
        "alone for the loopback; port 0 takes a free one and logs it. Each process on a machine needs a port of its "
        "own. Defaults to none: see docs/monitoring.md.",
    )
    reports: bool = Field(
        True,
        description="Whether this process reports to the state store once a second: that it runs, which queues it "
        "consumes, and what it has counted. `floodgate top` and the web pages show it.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")
    log_format: Literal["console", "json"] = Field("console", description="`json` writes one object per line.")

    @field_validator("bots", mode="before")
    @classmethod
    def _bots_from_json(cls, value: Any) -> Any:
        """Accept JSON text also from a program; the environment's is decoded before."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            # The text may contain tokens, so the error must not quote it.
            raise ValueError('is not JSON; write {"name": "token"}') from None

    @field_validator("bots")
    @classmethod
    def _bot_names(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, token in value.items():
            if not _BOT_NAME.fullmatch(name):
                raise ValueError(
                    f"bot name {name!r}: use 1 to 32 of a-z, 0-9, '-' and '_', since it becomes part of queue names"
                )
            _check_token(token, f"the token of bot {name!r}")
        return value

    @field_validator("methods")
    @classmethod
    def _method_names(cls, value: dict[str, Charge]) -> dict[str, Charge]:
        try:
            charges = {canonical_method(name).lower(): charge for name, charge in value.items()}
        except UnknownMethodError as error:
            raise ValueError(str(error).rstrip(".")) from None
        if Charge.UNQUEUED in charges.values():
            raise ValueError("the class 'unqueued' cannot be given: use 'free' for a method that is passed through")
        return charges

    @field_validator("bot_token")
    @classmethod
    def _bot_token_form(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _check_token(value, "the token")
        return value

    @field_validator("telegram_api_url")
    @classmethod
    def _api_url_form(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an http(s) URL such as http://127.0.0.1:8081")
        return value.rstrip("/")

    @field_validator("telegram_proxy")
    @classmethod
    def _proxy_form(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("is not an http(s) URL such as http://127.0.0.1:3128")
        return value

    @field_validator("metrics_address")
    @classmethod
    def _metrics_address_form(cls, value: str | None) -> str | None:
        if value is not None:
            ListenAddress.parse(value)
        return value

    @field_validator("rabbitmq_url")
    @classmethod
    def _rabbitmq_url_form(cls, value: SecretStr) -> SecretStr:
        for url in _split_urls(value):
            if urlsplit(url).scheme not in ("amqp", "amqps"):
                raise ValueError("is not an AMQP URL; write amqp://user:password@host:5672/vhost (amqps:// for TLS)")
        return value

    @field_validator("rabbitmq_management_url")
    @classmethod
    def _management_url_form(cls, value: SecretStr | None) -> SecretStr | None:
        for url in _split_urls(value) if value is not None else ():
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ValueError("is not an http(s) URL such as http://user:password@host:15672")
        return value

    @field_validator("state_url")
    @classmethod
    def _state_url_form(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith("sqlite:"):
            RedisAddress.parse(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _bounds_nest(self) -> Settings:
        if self.lease_seconds + self.hold_seconds >= CONSUMER_TIMEOUT_SECONDS:
            raise ValueError(
                "FLOODGATE_CALL_TIMEOUT_SECONDS + FLOODGATE_LEASE_MARGIN_SECONDS + FLOODGATE_HOLD_SECONDS must stay "
                f"below RabbitMQ's consumer timeout of {CONSUMER_TIMEOUT_SECONDS} s"
            )
        if self.updates.attempts * self.updates.handler_seconds >= CONSUMER_TIMEOUT_SECONDS:
            raise ValueError(
                "FLOODGATE_UPDATES__ATTEMPTS times FLOODGATE_UPDATES__HANDLER_SECONDS must stay below RabbitMQ's "
                f"consumer timeout of {CONSUMER_TIMEOUT_SECONDS} s, after which RabbitMQ takes the update from its "
                "worker"
            )
        if self.shutdown_seconds <= self.call_timeout_seconds:
            raise ValueError("FLOODGATE_SHUTDOWN_SECONDS must exceed FLOODGATE_CALL_TIMEOUT_SECONDS")
        if self.bot_token is not None and DEFAULT_BOT in self.bots:
            raise ValueError(f"the bot {DEFAULT_BOT!r} is in FLOODGATE_BOTS and in FLOODGATE_BOT_TOKEN: keep one")
        if (doubled := _two_names_of_one_token(self.tokens)) is not None:
            raise ValueError(
                f"the bots {doubled[0]!r} and {doubled[1]!r} have the same token, and each would use up its limits: "
                "keep one of the two"
            )
        if strangers := self.gateway.keys.keys() - self.tokens.keys():
            raise ValueError(f"FLOODGATE_GATEWAY__KEYS has keys for {min(strangers)!r}, which is not a configured bot")
        return self

    @property
    def lease_seconds(self) -> float:
        """How long a call in flight belongs to the worker that made it."""
        return self.call_timeout_seconds + self.lease_margin_seconds

    @property
    def rabbitmq_urls(self) -> tuple[str, ...]:
        """The cluster's addresses. They contain a password: do not log them."""
        return _split_urls(self.rabbitmq_url)

    @property
    def rabbitmq_management_urls(self) -> tuple[str, ...]:
        """The addresses of the management API, if any. They contain a password: do not log them."""
        return _split_urls(self.rabbitmq_management_url) if self.rabbitmq_management_url is not None else ()

    @property
    def tokens(self) -> dict[str, SecretStr]:
        """The tokens of all configured bots, by the bot's name."""
        single = {DEFAULT_BOT: self.bot_token} if self.bot_token is not None else {}
        return {**single, **self.bots}

    @property
    def default_bot(self) -> str:
        """The bot of a job that does not name one: the only configured bot, else the one named ``default``."""
        names = list(self.tokens)
        return names[0] if len(names) == 1 else DEFAULT_BOT

    def method(self, name: str) -> BotApiMethod:
        """Return a method of the Bot API, classed as ``FLOODGATE_METHODS`` says. Log a warning, once in a process, if
        only its verb classes it.

        Raises:
            UnknownMethodError: no method can have this name.
        """
        return classed_method(name, self.methods)

    def own_charge(self, name: str) -> Charge | None:
        """Return the class that ``FLOODGATE_METHODS`` gives a method, for a job to carry; None if it gives none. Log a
        warning as :meth:`method` does.

        Raises:
            UnknownMethodError: no method can have this name.
        """
        self.method(name)
        return self.methods.get(name.lower())

    def charge_of(self, job: Job) -> Charge:
        """Return what a job draws on, as this process's ``FLOODGATE_METHODS`` says, or its producer's, or the table."""
        if job.charge is not None and job.method.lower() not in self.methods:
            return job.charge
        return self.method(job.method).charge

    def token(self, bot: str) -> SecretStr:
        """Return the token of a bot.

        Raises:
            UnknownBotError: no bot of this name is configured.
        """
        try:
            return self.tokens[bot]
        except KeyError:
            raise UnknownBotError(unknown_bot_message(bot, self.tokens)) from None

    def require_bots(self) -> dict[str, SecretStr]:
        """Return the tokens of the configured bots, at least one, by the bot's name.

        Raises:
            SettingsError: no bot is configured.
        """
        if not self.tokens:
            raise SettingsError(
                "No bot token is set. Set FLOODGATE_BOT_TOKEN to the token @BotFather gave you "
                '(or FLOODGATE_BOTS to {"name": "token"}).'
            )
        return self.tokens


def unknown_bot_message(bot: str, known: dict[str, SecretStr]) -> str:
    """Return the text of an ``UnknownBotError``: the unknown name, the configured ones, and the fix."""
    names = ", ".join(sorted(known)) or "none"
    return f"No bot named {bot[:40]!r} is configured (configured: {names}). Add it to FLOODGATE_BOTS."


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment and ``.env``; ``overrides`` take precedence.

    A variable that is not a setting is logged as a warning, once in a process.

    Raises:
        SettingsError: a setting is wrong. The message names each wrong variable and its fix, and quotes no values.
    """
    env_file = overrides.get("_env_file", Settings.model_config["env_file"])
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except ParseError as error:
        if not isinstance(error.__cause__, json.JSONDecodeError):
            raise
        raise SettingsError(f"Settings: {environment.not_json(error.__cause__, Settings, env_file)}.") from None
    environment.warn_of_unknown(Settings, env_file)
    return settings


def _explain(error: ValidationError) -> str:
    faults = []
    for item in error.errors(include_input=False, include_url=False):
        name = environment.PREFIX + "__".join(str(part).upper() for part in item["loc"]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            faults.append(f"{name} is not a setting{environment.nearest(name, Settings)}")
        else:
            faults.append(f"{name} {item['msg'].removeprefix('Value error, ')}".strip())
    return "Settings: " + "; ".join(faults) + "."


def _two_names_of_one_token(tokens: Mapping[str, SecretStr]) -> tuple[str, str] | None:
    names: dict[str, str] = {}
    for name, token in tokens.items():
        if (first := names.setdefault(token.get_secret_value(), name)) != name:
            return first, name
    return None


def _check_token(token: SecretStr, whose: str) -> None:
    if not _TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError(f"{whose} is malformed: @BotFather's look like 123456789:AA… (digits, a colon, 35 characters)")


def _split_urls(value: SecretStr) -> tuple[str, ...]:
    return tuple(url.strip() for url in value.get_secret_value().split(",") if url.strip())
