"""Explains errors of redis-py, each in one sentence with the remedy."""

from __future__ import annotations

from typing import Final

import redis

from floodgate.broker.errors import StateSchemaError, StateUnavailableError
from floodgate.broker.settings.redis_address import Deployment, RedisAddress
from floodgate.broker.state.redis.clients import NoPrimaryError

# What a client raises if the server cannot answer. Errors of a cluster as a whole do not have the base class.
ERRORS: Final = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException)


def is_moved(error: Exception) -> bool:
    """Whether the state has perhaps moved to servers that the client has not heard of, so that it must be made anew."""
    return isinstance(error, redis.exceptions.ReadOnlyError | redis.exceptions.RedisClusterException)


def fault(error: Exception, address: RedisAddress) -> StateUnavailableError | StateSchemaError:
    """Translate one of :data:`ERRORS` into one that names the cause and the remedy."""
    text = str(error)
    if isinstance(error, redis.exceptions.RedisClusterException) and isinstance(error.__cause__, ERRORS):
        return fault(error.__cause__, address)
    if text.startswith("SCHEMA "):
        return StateSchemaError(
            f"The state in Redis at {address} has schema {text[7:]}, unknown to this Floodgate. Stop all workers and "
            "delete its floodgate:* keys: no message is lost, since messages are in RabbitMQ."
        )
    return StateUnavailableError(
        f"Redis at {address} {_of_client(error, text, address.deployment) or _of_server(text)}"
    )


def _of_client(error: Exception, text: str, deployment: Deployment) -> str | None:
    """Explain an error by its class."""
    match error:
        case NoPrimaryError():
            return text
        case redis.exceptions.AuthenticationError():
            return "refuses the user or password. Correct FLOODGATE_STATE_URL."
        case redis.exceptions.NoPermissionError():
            return f"does not allow this user what Floodgate needs ({text[:200]}). Extend the user's ACL."
        case redis.exceptions.ReadOnlyError():
            return (
                "is a read-only replica. Point FLOODGATE_STATE_URL at the primary, or at the Sentinels that know which "
                "it is."
            )
        case redis.exceptions.OutOfMemoryError():
            return "has no memory left. Raise its maxmemory; sends then resume by themselves."
        case redis.exceptions.BusyLoadingError():
            return "is still loading its data. Sends resume when it has finished."
        case redis.exceptions.ConnectionError() if "SSL" in text or "certificate" in text:
            return f"cannot be reached with TLS: {text[-200:].strip()} Correct FLOODGATE_STATE_URL or the certificate."
        case redis.exceptions.TimeoutError():
            remedy = _REMEDIES[deployment] if deployment is not Deployment.SERVER else _RESUMES
            return f"does not answer in time: it hangs, or the network to it does. {remedy}"
        case redis.exceptions.ConnectionError():
            return f"does not answer ({type(error).__name__}). {_REMEDIES[deployment]}"
        case redis.exceptions.ClusterDownError() | redis.exceptions.SlotNotCoveredError():
            return (
                "is a cluster with a part that no node serves. Sends resume when a replica has taken over; "
                "`redis-cli --cluster check` shows what is missing."
            )
        case redis.exceptions.TryAgainError() | redis.exceptions.ClusterError():
            return "is moving the bot's keys to another node. Its sends resume when they have arrived."
        case redis.exceptions.RedisClusterException() if "not enabled" in text:
            return "is not a cluster. Write redis:// instead of redis+cluster:// in FLOODGATE_STATE_URL."
    return None


def _of_server(text: str) -> str:
    """Explain an error by the server's text."""
    for said, why in _SAID.items():
        if said in text:
            return why
    return f"failed: {text[:200]}. Check its log."


_REMEDIES: Final = {
    Deployment.SERVER: "Start it, or correct FLOODGATE_STATE_URL.",
    Deployment.SENTINEL: "Sends resume when it does, or a replica in its place.",
    Deployment.CLUSTER: "Sends resume when each part of it does; if none does, correct FLOODGATE_STATE_URL.",
}
_RESUMES: Final = "Sends resume when it does; if it never does, correct FLOODGATE_STATE_URL."
_SAID: Final = {
    "SELECT is not allowed": "is a Redis Cluster, which has only database 0. Remove the database from "
    "FLOODGATE_STATE_URL.",
    "DB index is out of range": "has no database of that number. Correct it in FLOODGATE_STATE_URL.",
    "MISCONF": "cannot write to its disk and refuses writes. Free some space there; sends then resume by themselves.",
    "NOREPLICAS": "has too few replicas for its min-replicas-to-write. Sends resume when enough are connected.",
    "MASTERDOWN": "is a replica without its primary. Point FLOODGATE_STATE_URL at the primary, or at the "
    "Sentinels that know which it is.",
    "CROSSSLOT": "refuses to serve all keys of a bot at once. Connect to its nodes directly, without a proxy.",
}
