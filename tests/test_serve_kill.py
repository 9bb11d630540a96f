"""Whatever was acknowledged is there after ``kill -9``, once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.served import ADMIN, KEYS, free_port, serving, start

POSTERS = 4
MOST_AT_ONCE = 20
LONGEST = 0.8
"""Seconds that a server lives after it is ready, at most."""


class Poster:
    """Posts events of one person, one by one and in lists, and writes down what was acknowledged."""

    def __init__(self, number: int, url: str, seed: int) -> None:
        self.user = f"poster-{number}"
        self.url = url
        self.random = random.Random(seed * POSTERS + number)
        self.posted: dict[str, dict] = {}
        self.acknowledged: set[str] = set()
        self.in_doubt: list[dict] = []
        self.wrong: list[str] = []

    def events(self) -> list[dict]:
        """What is in doubt since the last kill, and then new ones."""
        if self.in_doubt and self.random.random() < 0.5:  # else it stays in doubt for good
            again, self.in_doubt = self.in_doubt, []
            return again
        count = self.random.choice([1, 1, 1, self.random.randint(2, MOST_AT_ONCE)])
        made = [
            {
                "event_id": f"{self.user}/{len(self.posted) + step}",
                "user": self.user,
                "item": f"thing {self.random.randint(0, 99)}",
                "event": "view",
                "time": 1_800_000_000_000_000 + len(self.posted) + step,
                "value": float(step),
            }
            for step in range(count)
        ]
        self.posted |= {each["event_id"]: each for each in made}
        return made

    def run(self) -> None:
        """Posts until the server does not answer any more."""
        with httpx.Client(base_url=self.url, headers=ADMIN, timeout=30) as client:
            while True:
                sent = self.events()
                try:
                    answer = client.post("/v1/events", json=sent[0] if len(sent) == 1 else sent)
                except httpx.HTTPError:
                    self.in_doubt = sent
                    return
                if answer.status_code != 200:
                    self.wrong.append(f"{answer.status_code}: {answer.text}")
                    return
                told = answer.json()
                if told["stored"] + told["known"] != len(sent):
                    self.wrong.append(f"{told} of {len(sent)} events")
                self.acknowledged |= {each["event_id"] for each in sent}


def kept(url: str, user: str) -> Iterator[dict]:
    answer = httpx.get(f"{url}/v1/users/{user}", headers=ADMIN, timeout=30)
    assert answer.status_code == 200, answer.text
    yield from answer.json()["events"]


def killed(run: Path, folder: Path, kills: int, seed: int) -> None:
    """The server is killed so many times while events come; then all that was acknowledged is there."""
    print(f"seed {seed}")
    port, store, moments = free_port(), folder / "events.db", random.Random(seed)
    url = f"http://127.0.0.1:{port}"
    posters = [Poster(number, url, seed) for number in range(POSTERS)]
    for _ in range(kills):
        server = start(run, store, port, **KEYS)
        threads = [threading.Thread(target=poster.run) for poster in posters]
        for thread in threads:
            thread.start()
        time.sleep(moments.uniform(0.02, LONGEST))
        server.kill()
        server.wait()
        for thread in threads:
            thread.join()
    with serving(run, store, port, **KEYS):
        for poster in posters:
            assert not poster.wrong
            found = list(kept(url, poster.user))
            ids = [each["event_id"] for each in found]
            assert len(ids) == len(set(ids))
            assert poster.acknowledged <= set(ids) <= poster.posted.keys()
            for each in found:
                sent = poster.posted[each["event_id"]]
                assert {name: each[name] for name in ("item", "event", "time", "value")} == {
                    name: sent[name] for name in ("item", "event", "time", "value")
                }
    assert sum(len(poster.acknowledged) for poster in posters) >= kills


def test_what_was_acknowledged_is_there_once_after_five_kills(shop_run, tmp_path):
    killed(shop_run, tmp_path, kills=5, seed=5)


@pytest.mark.slow
def test_what_was_acknowledged_is_there_once_after_fifty_kills(shop_run, tmp_path):
    killed(shop_run, tmp_path, kills=50, seed=time.time_ns() % 2**32)
