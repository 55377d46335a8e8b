"""Several Redis servers that belong together: a primary and a replica with three Sentinels, and a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from rabbitmq_node.engine import free_ports
from tests.services import RedisServer
from tests.waiting import until

PRIMARY = "main"
# As docs/operating.md recommends; failover-timeout is only used when a failover did not succeed.
DOWN_AFTER_MS = 2000
FAILOVER_TIMEOUT_MS = 6000
READY_SECONDS = 60.0


class SentinelServer(RedisServer):
    """A Sentinel. It keeps what it learns in its configuration file."""

    def __init__(self, home: Path, primary_port: int, *lines: str, down_after_ms: int = DOWN_AFTER_MS) -> None:
        super().__init__(home)
        self._lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {home}",
            f"sentinel monitor {PRIMARY} 127.0.0.1 {primary_port} 2",
            f"sentinel down-after-milliseconds {PRIMARY} {down_after_ms}",
            f"sentinel failover-timeout {PRIMARY} {FAILOVER_TIMEOUT_MS}",
            *lines,
        )

    def _command(self) -> list[str]:
        conf = self.home / "sentinel.conf"
        if not conf.exists():
            conf.write_text("\n".join(self._lines) + "\n")
        return [super()._command()[0], str(conf), "--sentinel"]


class ReplicatedRedis:
    """Two servers, one the replica of the other, and three Sentinels that watch them. Used by one thread."""

    def __init__(self, home: Path, *flags: str, down_after_ms: int = DOWN_AFTER_MS, sentinel_lines: Sequence[str] = ()):
        at_once = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        self.servers = [RedisServer(_folder(home, f"server-{number}"), *at_once, *flags) for number in range(2)]
        first, second = self.servers
        second.flags = (*second.flags, "--replicaof", f"127.0.0.1 {first.port}")
        self.sentinels = [
            SentinelServer(_folder(home, f"sentinel-{n}"), first.port, *sentinel_lines, down_after_ms=down_after_ms)
            for n in range(3)
        ]

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/{PRIMARY}/0"

    def start(self) -> ReplicatedRedis:
        """Return when the replica is current and each Sentinel knows the two others and the replica."""
        for each in (*self.servers, *self.sentinels):
            each.start()
        self.await_replica()
        until(lambda: all(map(_knows_all, self.sentinels)), READY_SECONDS)
        return self

    def await_replica(self) -> None:
        """Return when one of the servers is a current replica of the other."""
        until(
            lambda: any(_info(each, "replication").get("master_link_status") == "up" for each in self.servers),
            READY_SECONDS,
        )

    def replace(self, former: RedisServer) -> None:
        """Restart a former primary as the replica of the one that took its place. Return when all know it."""
        former.kill()
        former.flags = (*former.flags, "--replicaof", f"127.0.0.1 {self.primary().port}")
        former.start()
        self.await_replica()
        until(lambda: all(map(_knows_all, self.sentinels)), READY_SECONDS)

    def primary(self) -> RedisServer:
        """Return the server that the first Sentinel names."""
        with connected(self.sentinels[0]) as client:
            port = int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY)[1])
        return next(each for each in self.servers if each.port == port)

    def stop(self) -> None:
        for each in (*self.sentinels, *self.servers):
            each.kill()


class ShardedRedis:
    """A Redis Cluster of three shards, without replicas unless asked for. Used by one thread.

    Args:
        tls: flags that name the certificate and the key of a cluster that also accepts TLS.
    """

    def __init__(
        self, home: Path, *flags: str, replicas: int = 0, node_timeout_ms: int = 2000, tls: Sequence[str] = ()
    ) -> None:
        self.tls_ports = [free_ports().amqp for _ in range(3 + 3 * replicas)]

        def node(number: int) -> RedisServer:
            cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_ports().amqp))
            away = ("--cluster-require-full-coverage", "no", "--cluster-node-timeout", str(node_timeout_ms))
            at_once = ("--repl-diskless-sync-delay", "0", "--appendonly", "no")
            secure = (
                "--tls-port",
                str(self.tls_ports[number]),
                "--tls-cluster",
                "yes",
                "--tls-auth-clients",
                "no",
                *tls,
            )
            return RedisServer(
                _folder(home, f"node-{number}"), *cluster, *away, *at_once, *(secure if tls else ()), *flags
            )

        self.nodes = [node(number) for number in range(3 + 3 * replicas)]

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{each.port}" for each in self.nodes)

    @property
    def url(self) -> str:
        return f"redis+cluster://{self.hosts}"

    def start(self) -> ShardedRedis:
        """Return when all nodes serve all slots. Does what `redis-cli --cluster create` does, without its pauses."""
        for each in self.nodes:
            each.start()
        bounds = [0, 5461, 10922, 16384]
        for number, each in enumerate(self.nodes):
            with connected(each) as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number < 3:
                    client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                for other in self.nodes[:number]:
                    bus = other.flags[other.flags.index("--cluster-port") + 1]
                    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port, bus)
        self._await_slots()
        for number, each in enumerate(self.nodes[3:]):
            with connected(each) as client:
                client.execute_command("CLUSTER REPLICATE", self.id_of(self.nodes[number % 3]))
        for each in self.nodes[3:]:
            until(lambda each=each: _info(each, "replication").get("master_link_status") == "up", READY_SECONDS)  # type: ignore[misc]
        return self

    def _await_slots(self) -> None:
        for each in self.nodes:
            with connected(each) as client:
                until(
                    lambda client=client: (
                        (found := client.execute_command("CLUSTER INFO"))["cluster_state"] == "ok"  # type: ignore[misc]
                        and int(found["cluster_known_nodes"]) == len(self.nodes)
                    ),
                    READY_SECONDS,
                )

    def id_of(self, node: RedisServer) -> str:
        with connected(node) as client:
            return str(client.execute_command("CLUSTER MYID"))

    def node_of(self, bot: str) -> RedisServer:
        """Return the node that serves a bot's keys."""
        with connected(self.nodes[0]) as client:
            slot = client.execute_command("CLUSTER KEYSLOT", f"{{{bot}}}")
            ranges = client.execute_command("CLUSTER SLOTS")
        port = next(primary[1] for first, last, primary, *_ in ranges if first <= slot <= last)
        return next(each for each in self.nodes if each.port == port)

    def bot_elsewhere(self, bot: str) -> str:
        """Return the name of a bot whose keys are on another node."""
        return next(name for name in map("bot-{}".format, range(1000)) if self.node_of(name) is not self.node_of(bot))

    @contextlib.contextmanager
    def without_answers_for(self, bot: str) -> Iterator[None]:
        """Suspend the node of a bot; at the end, let it run on."""
        with self.node_of(bot).frozen():
            yield
        self._await_slots()

    @contextlib.contextmanager
    def without_node_of(self, bot: str) -> Iterator[None]:
        """Kill the node of a bot; at the end, start it again, without its data."""
        node = self.node_of(bot)
        node.kill()
        try:
            yield
        finally:
            node.start()
            self._await_slots()

    @contextlib.contextmanager
    def moving(self, bot: str) -> Iterator[Callable[[int], None]]:
        """Move a bot's slot to another node, as `redis-cli --cluster reshard` does.

        Yields a function that moves so many keys. The slot is handed over at the end.
        """
        source = self.node_of(bot)
        target = next(each for each in self.nodes if each is not source)
        with connected(source) as sender, connected(target) as receiver:
            slot = sender.execute_command("CLUSTER KEYSLOT", f"{{{bot}}}")
            receiver.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
            sender.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))

            def move(keys: int) -> None:
                names = sender.execute_command("CLUSTER GETKEYSINSLOT", slot, keys)
                if names:
                    sender.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)

            yield move
            for each in (receiver, sender):
                each.execute_command("CLUSTER SETSLOT", slot, "NODE", self.id_of(target))
        until(lambda: self.node_of(bot) is target, READY_SECONDS)

    def flush(self) -> None:
        for each in self.nodes:
            each.flush()

    def stop(self) -> None:
        for each in self.nodes:
            each.kill()


@contextlib.contextmanager
def connected(server: RedisServer, password: str | None = None) -> Iterator[Any]:
    """A client of one server alone."""
    client = redis.Redis(port=server.port, password=password, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def tls_files(certificate: Path) -> dict[str, str]:
    """The settings that name a certificate, which is its own authority, and its key in the same folder."""
    key = certificate.with_name("key.pem")
    return {"tls-cert-file": str(certificate), "tls-key-file": str(key), "tls-ca-cert-file": str(certificate)}


def _folder(home: Path, name: str) -> Path:
    folder = home / name
    folder.mkdir()
    return folder


def _info(server: RedisServer, section: str) -> Any:
    with connected(server) as client:
        return client.info(section)


def _knows_all(sentinel: RedisServer) -> bool:
    with connected(sentinel) as client:
        state = client.sentinel_masters()[PRIMARY]
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 and not state["is_sdown"])
