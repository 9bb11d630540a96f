"""Models take each other's place while people ask: nobody is refused, and no list is of two models."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from palate.serve.app import create_app
from palate.serve.options import ServeOptions
from tests.pottery import PEOPLE
from tests.served import KEYS, mix_up

ASKING = 6
"""People who ask at once, each again and again."""
ENTRY = {"history": ["dcut", "dbos"], "k": 10}


class Crowd:
    """People who ask until they are told to stop, and check every answer against what each model says."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.right: dict[tuple[str, str], list[str]] = {}
        """By model and who asks, the list."""
        self.over = False
        self.answers = 0
        self.models: set[str] = set()

    async def ask(self, who: str) -> dict[str, Any]:
        if who == "a stranger":
            answer = await self.client.post("/v1/recommendations", json=ENTRY)
        else:
            answer = await self.client.get(f"/v1/users/{who}/recommendations", params={"k": 10})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def learn(self, people: list[str]) -> str:
        """What the model of now says to each."""
        models = set()
        for who in people:
            told = await self.ask(who)
            self.right[told["model"], who] = [each["item"] for each in told["items"]]
            models.add(told["model"])
        [model] = models
        return model

    async def go_on_asking(self, people: list[str]) -> None:
        while not self.over:
            for who in people:
                told = await self.ask(who)
                assert [each["item"] for each in told["items"]] == self.right[told["model"], who]
                self.models.add(told["model"])
                self.answers += 1


async def reload(client: httpx.AsyncClient, to: str) -> str:
    answer = await client.post("/v1/admin/reload", json={"to": to})
    assert answer.status_code == 200, answer.text
    return answer.json()["model"]


def put_in_place(run: Path, export: Path) -> None:
    """RUN/serving is a copy of this export."""
    coming = run / "coming"
    shutil.copytree(export, coming)
    shutil.move(run / "serving", run / "going")
    coming.rename(run / "serving")
    shutil.rmtree(run / "going")


async def swapped(run: Path, store: Path, swaps: int) -> None:
    """So many swaps while a crowd asks: latest, previous, and again."""
    one, other = run.with_name("one"), run.with_name("other")
    shutil.copytree(run / "serving", one)
    shutil.copytree(run / "serving", other)
    mix_up(other)
    app = create_app(run, ServeOptions(store=f"sqlite:///{store}"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client,
    ):
        crowd, people = (
            Crowd(client),
            [f"guest-{n:02d}" for n in range(PEOPLE)] + ["nobody yet", "a stranger"],
        )
        first = await crowd.learn(people)
        put_in_place(run, other)
        second = await reload(client, "latest")
        assert await crowd.learn(people) == second != first
        lists = [crowd.right[first, who] != crowd.right[second, who] for who in people]
        assert all(lists[:PEOPLE])  # a mixed list could not hide
        asking = [asyncio.ensure_future(crowd.go_on_asking(people[n:] + people[:n])) for n in range(ASKING)]
        now, before = second, first
        for swap in range(swaps):
            if swap % 2:
                put_in_place(run, one if now == second else other)
                told = await reload(client, "latest")
            else:
                told = await reload(client, "previous")
            assert told == before
            now, before = before, now
            count = crowd.answers
            while crowd.answers < count + ASKING and not any(task.done() for task in asking):
                await asyncio.sleep(0.001)
        crowd.over = True
        await asyncio.gather(*asking)
    assert crowd.models == {first, second}
    assert crowd.answers >= swaps * ASKING
    print(f"{crowd.answers} answers during {swaps} swaps")


@pytest.fixture
def own_run(shop_run, tmp_path, monkeypatch):
    """A run whose export may be replaced, on a server without keys."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    return Path(shutil.copytree(shop_run, tmp_path / "run"))


def test_no_request_fails_or_mixes_models_during_five_swaps(own_run, tmp_path):
    asyncio.run(swapped(own_run, tmp_path / "events.db", 5))


@pytest.mark.slow
def test_no_request_fails_or_mixes_models_during_fifty_swaps(own_run, tmp_path):
    asyncio.run(swapped(own_run, tmp_path / "events.db", 50))
