"""Run by the tests in the environment with its dependencies: our spool with s3fs on moto's S3 over HTTP.

Prints one JSON object: for each fact None or the error.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import boto3
from moto.server import ThreadedMotoServer

from floodgate.broker.errors import SpoolError, UploadMissingError
from floodgate.broker.messages.spooled_file import SpooledFile
from floodgate.broker.uploads.spool import Spool

URL = "s3://bucket/floodgate"
SMALL, LARGE = os.urandom(300_000), os.urandom(11_000_000)  # one request, and an upload in parts


def put(spool: Spool, content: bytes, job: str = "job-1") -> SpooledFile:
    return spool.put("bot", job, 0, "photo", "cat.png", io.BytesIO(content))


def content_of(spool: Spool, file: SpooledFile) -> bytes:
    with spool.open("bot", file.key.split("/")[2], file) as source:
        return source.read()


def raises(kind: type[Exception], act: Callable[[], object]) -> str:
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def elsewhere(code: str, file: SpooledFile) -> None:
    """The effect of another process on the same spool."""
    program = f"""
from floodgate.broker.uploads.spool import Spool, SpooledFile
spool, file = Spool({URL!r}), SpooledFile.model_validate_json({file.model_dump_json()!r})
{code}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def an_upload_is_given_back_whole(spool: Spool) -> None:
    for content in (SMALL, LARGE):
        assert content_of(spool, put(spool, content)) == content


def another_process_reads_it_and_removes_it(spool: Spool) -> None:
    file = put(spool, SMALL)
    elsewhere("assert len(spool.open('bot', 'job-1', file).read()) == file.size; spool.remove('bot', 'job-1')", file)
    raises(UploadMissingError, lambda: spool.open("bot", "job-1", file))


def removing_twice_is_as_good_as_once_and_leaves_other_jobs(spool: Spool) -> None:
    file, other = put(spool, SMALL), put(spool, SMALL, "job-10")
    spool.remove("bot", "job-1")
    spool.remove("bot", "job-1")
    raises(UploadMissingError, lambda: spool.open("bot", "job-1", file))
    assert content_of(spool, other) == SMALL


def discarding_takes_one_file_and_leaves_its_neighbour(spool: Spool) -> None:
    file, neighbour = put(spool, SMALL), put(spool, b"other")
    spool.discard("bot", "job-1", [file])
    spool.discard("bot", "job-1", [file])
    raises(UploadMissingError, lambda: spool.open("bot", "job-1", file))
    assert content_of(spool, neighbour) == b"other"


def a_file_id_that_another_process_learnt_or_forgot_is_known_at_once(spool: Spool) -> None:
    file = put(spool, SMALL)
    assert spool.known("bot", "photo", file.sha256) is None
    elsewhere("spool.know('bot', 'photo', file.sha256, 'ID')", file)
    assert spool.known("bot", "photo", file.sha256) == "ID"
    elsewhere("spool.know('bot', 'photo', file.sha256, None)", file)
    assert spool.known("bot", "photo", file.sha256) is None


def what_is_old_is_swept_whoever_put_it(spool: Spool) -> None:
    assert spool.sweep(3600) == 0
    file = put(spool, SMALL)
    elsewhere("import io; spool.put('bot', 'job-2', 0, 'x', 'x', io.BytesIO(b'theirs'))", file)
    assert spool.sweep(3600) == 0
    time.sleep(1.1)  # S3 reports time in whole seconds
    assert spool.sweep(0.05) == 2
    raises(UploadMissingError, lambda: spool.open("bot", "job-1", file))


def threads_share_it(spool: Spool) -> None:
    def work(number: int) -> bool:
        return content_of(spool, put(spool, SMALL[number:], f"job-{number}")) == SMALL[number:]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(24)))


class BreaksOff(io.BytesIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        if self.tell():
            raise ConnectionError("gone")
        return super().read(10)


def of_an_upload_that_breaks_off_nothing_stays(spool: Spool) -> None:
    raises(SpoolError, lambda: spool.put("bot", "broken", 0, "x", "x", BreaksOff(SMALL)))
    keys = [about["Key"] for about in boto3.client("s3").list_objects_v2(Bucket="bucket").get("Contents", [])]
    assert not [key for key in keys if "/broken/" in key], keys


def a_store_that_is_away_is_a_sentence(spool: Spool) -> None:
    file = put(spool, SMALL)
    server.stop()
    for act in (
        lambda: put(spool, SMALL),
        lambda: spool.open("bot", "job-1", file),
        lambda: spool.known("bot", "photo", "ab"),
    ):
        said = raises(SpoolError, act)
        assert said.startswith(f"The spool {URL} failed ("), said


FACTS = [
    an_upload_is_given_back_whole,
    another_process_reads_it_and_removes_it,
    removing_twice_is_as_good_as_once_and_leaves_other_jobs,
    discarding_takes_one_file_and_leaves_its_neighbour,
    a_file_id_that_another_process_learnt_or_forgot_is_known_at_once,
    what_is_old_is_swept_whoever_put_it,
    threads_share_it,
    of_an_upload_that_breaks_off_nothing_stays,
    a_store_that_is_away_is_a_sentence,  # the last: it ends the server
]


def proven(fact: Callable[[Spool], None], spool: Spool) -> str | None:
    try:
        bucket = boto3.resource("s3").Bucket("bucket")
        bucket.objects.all().delete()
        fact(spool)
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        return traceback.format_exc(limit=-4)
    return None


if __name__ == "__main__":
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    boto3.client("s3").create_bucket(Bucket="bucket")
    spool = Spool(URL)
    spool.prepare()
    print(json.dumps({fact.__name__: proven(fact, spool) for fact in FACTS}))
