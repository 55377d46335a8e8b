"""The spool shared by several machines: in an S3 store, through s3fs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.gateway.programs import clients_python
from tests.processes import ROOT

PROGRAM = Path(__file__).with_name("spool_on_s3.py")
SECONDS = 100.0
FACTS = [
    "an_upload_is_given_back_whole",
    "another_process_reads_it_and_removes_it",
    "removing_twice_is_as_good_as_once_and_leaves_other_jobs",
    "discarding_takes_one_file_and_leaves_its_neighbour",
    "a_file_id_that_another_process_learnt_or_forgot_is_known_at_once",
    "what_is_old_is_swept_whoever_put_it",
    "threads_share_it",
    "of_an_upload_that_breaks_off_nothing_stays",
    "a_store_that_is_away_is_a_sentence",
]


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """The program's findings. It uses no S3 account of this machine."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path_factory.mktemp("home"))}
    done = subprocess.run(
        [clients_python(), str(PROGRAM)], env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("fact", FACTS)
def test_a_spool_on_s3_behaves_as_expected(proven: dict[str, str | None], fact: str) -> None:
    assert proven[fact] is None, proven[fact]


def test_every_expected_fact_is_checked_on_s3(proven: dict[str, str | None]) -> None:
    assert list(proven) == FACTS
