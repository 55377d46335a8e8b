"""The peers as contenders."""

from __future__ import annotations

from benchmarks.stage.contenders import Contender

PEERS: tuple[Contender, ...] = ()
