"""``amqps://`` through a TLS terminator in front of the node: trusted, untrusted, and with a wrong name."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import RabbitMQUnreachableError
from rabbitmq_node.node import Node

Connect = Callable[..., Connections]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, for `localhost` only; the key is in the same folder."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    files = ["-keyout", str(folder / "key.pem"), "-out", str(made)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=30)
    return made


@pytest.fixture
def tls_port(rabbitmq: Node, certificate: Path) -> Iterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with terminator(context, rabbitmq.port) as port:
        yield port


@contextlib.contextmanager
def terminator(context: ssl.SSLContext, target: int) -> Iterator[int]:
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_certificate_of_a_trusted_authority_is_accepted(tls_port: int, certificate: Path, connect: Connect) -> None:
    connections = connect(f"amqps://guest:guest@localhost:{tls_port}/?cafile={certificate}")
    connections.connect()
    assert connections.server_version >= (4, 0)
    connections.stop()


def test_an_untrusted_certificate_is_refused(tls_port: int, connect: Connect) -> None:
    with pytest.raises(RabbitMQUnreachableError, match=r"(?i)certificate verify failed"):
        connect(f"amqps://guest:guest@localhost:{tls_port}/").connect()


def test_a_certificate_with_a_wrong_name_is_refused(tls_port: int, certificate: Path, connect: Connect) -> None:
    with pytest.raises(RabbitMQUnreachableError, match=r"(?i)certificate"):
        connect(f"amqps://guest:guest@127.0.0.1:{tls_port}/?cafile={certificate}").connect()
