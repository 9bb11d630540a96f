"""Random operations on a server, in any order and across restarts, beside a slow and obvious reference."""

from __future__ import annotations

import io
import json
import random
import time
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from palate.runtime.model import ServingModel
from palate.schema import Histories
from palate.serve.app import create_app
from palate.serve.options import ServeOptions
from tests.pottery import FORMS, GLAZES, PEOPLE, SIZES, picture
from tests.reference import TOLERANCE, Reference

NEW_ITEMS, NEW_PEOPLE = 40, 12
START = 1_800_000_000_000_000
ABOUT = ("event", "event", "event", "list", "list", "list", "history", "put", "patch", "switch", "remove")
SELDOM = ("forget", "an_item", "similar", "person", "again", "missing")
RESTART = 0.004


class Walk:
    """One server, its reference, and a source of chance that both hear."""

    def __init__(self, run, store, seed: int) -> None:
        self.run, self.store = run, store
        self.random = random.Random(seed)
        self.reference = Reference(ServingModel.load(run / "serving"))
        self.trained = sorted(self.reference.things)
        self.items = [*self.trained, *(f"new {n}" for n in range(NEW_ITEMS))]
        self.people = [f"guest-{n:02d}" for n in range(PEOPLE)][:20] + [
            f"late {n}" for n in range(NEW_PEOPLE)
        ]
        self.pictures: dict[str, bytes] = {}
        self.posted = 0
        self.told: list[str] = []
        self.open()

    def open(self) -> None:
        app = create_app(self.run, ServeOptions(store=f"sqlite:///{self.store}"))
        self.client = TestClient(app)
        self.client.__enter__()

    def close(self) -> None:
        self.client.__exit__(None, None, None)

    def go(self, operations: int) -> None:
        """So many operations agree; the last ones are told where one does not."""
        try:
            for number in range(operations):
                chance = self.random.random()
                name = self.random.choice(SELDOM if chance < 0.12 else ABOUT)
                name = "restart" if chance < RESTART else name
                self.told = [*self.told[-20:], f"{number}: {name}"]
                getattr(self, name)()
        except Exception as error:
            error.add_note("\n".join(self.told))
            raise
        finally:
            self.close()

    def ask(self, method: str, path: str, status: int = 200, **given: Any) -> Any:
        self.told.append(f"  {method} {path} {str(given)[:300]}")
        answer = self.client.request(method, path, **given)
        assert answer.status_code == status, answer.text
        return answer.json()

    # Operations

    def restart(self) -> None:
        if self.random.random() < 0.5:
            self.close()
            self.open()
        else:
            self.ask("POST", "/v1/admin/reload", json={"to": "latest"})

    def an_event(self) -> dict[str, Any]:
        user = self.random.choice(self.people)
        self.posted += 1
        event = {
            "event_id": f"event {self.posted}",
            "user": user,
            "item": self.random.choice([*self.items, "nothing that is there"]),
            "event": self.random.choice(["view", "purchase", "view", "unheard of"]),
            "time": START + self.random.randint(0, 10_000) * 1_000_000,
            "value": self.random.choice([None, 2.5]),
        }
        trained = self.reference.trained(user)
        if trained and self.random.random() < 0.1:  # what training has seen comes once more
            item, code, moment = self.random.choice(trained)
            prepared = self.reference.model.prepared
            [event["item"]] = map(str, prepared.items.keys([item]))
            event |= {"event": prepared.schema.events[code], "time": moment}
        return event

    def event(self) -> None:
        events = [self.an_event() for _ in range(self.random.choice([1, 1, 1, 4]))]
        answer = self.ask("POST", "/v1/events", json=events[0] if len(events) == 1 else events)
        right = self.reference.post(events)
        unknown = {
            each["item"] for each in events if self.reference.number_in_histories(each["item"]) is None
        }
        assert answer["unknown_items"] == sorted(unknown)
        assert {name: answer[name] for name in right} == right

    def again(self) -> None:
        """Known events once more, and with other content."""
        if not self.reference.known:
            return
        event = self.random.choice([*self.reference.known.values()])
        answer = self.ask("POST", "/v1/events", json=[event, event])
        assert (answer["stored"], answer["known"]) == (0, 2)
        other = event | {"time": event["time"] + 1}
        new = self.an_event()
        self.ask("POST", "/v1/events", 409, json=[new, other])
        assert self.reference.post([new, other]) is None

    def list(self) -> None:
        user, k = self.random.choice(self.people), self.random.choice([1, 5, 10, 200])
        wishes: dict[str, Any] = {"k": k}
        glaze = self.random.choice([None, None, None, "delft", "amber", "plaid"])
        exclude = self.random.sample(self.items, 3) if self.random.random() < 0.3 else []
        filter_seen = self.random.choice([True, True, False])
        wishes |= {"filter_seen": filter_seen, "exclude": exclude}
        wishes |= {"any_of": f"glaze:{glaze}"} if glaze else {}
        answer = self.ask("GET", f"/v1/users/{user}/recommendations", params=wishes)
        history = self.reference.history(user)
        right = self.reference.candidates(history, glaze=glaze, exclude=exclude, filter_seen=filter_seen)
        self.reference.assert_list(answer["items"], history, k, right)

    def history(self) -> None:
        keys = self.random.sample([*self.items, "nothing that is there"], self.random.randint(0, 6))
        answer = self.ask("POST", "/v1/recommendations", json={"history": keys, "k": 7, "filter_seen": True})
        numbers = [self.reference.number_in_histories(key) for key in keys]
        history = Histories.of([[number for number in numbers if number is not None]])
        schema = self.reference.model.prepared.schema
        history.event[:] = schema.events.index(schema.target_events[0])
        right = self.reference.candidates(history, glaze=None, exclude=[], filter_seen=True)
        self.reference.assert_list(answer["items"], history, 7, right)

    def described(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        glaze, form, size = (self.random.choice([*names]) for names in (GLAZES, FORMS, SIZES))
        every = {"title": f"{glaze} {form}, {size}", "glaze": glaze.lower(), "price": 5.5}
        fields = {name: value for name, value in every.items() if self.random.random() < 0.6}
        if fields and self.random.random() < 0.2:
            fields[self.random.choice([*fields])] = None
        files = {}
        if self.random.random() < 0.3:
            name = f"{glaze} {form} {size}"
            if name not in self.pictures:
                with io.BytesIO() as written:
                    picture(glaze, form, size).save(written, "PNG")
                    self.pictures[name] = written.getvalue()
            files["picture"] = self.pictures[name]
        elif self.random.random() < 0.1:
            fields["picture"] = None
        return fields, files

    def describe(self, method: str, key: str) -> None:
        fields, files = self.described()
        status = 404 if method == "PATCH" and key not in self.reference.things else 200
        if files:
            form = {"data": {"fields": json.dumps(fields)}, "files": {n: (n, of) for n, of in files.items()}}
            answer = self.ask(method, f"/v1/items/{key}", status, **form)
        else:
            answer = self.ask(method, f"/v1/items/{key}", status, json={"fields": fields})
        if status == 200:
            (self.reference.put if method == "PUT" else self.reference.patch)(key, fields, files)
            assert answer | {"media": sorted(answer["media"])} == self.reference.view(key)

    def put(self) -> None:
        self.describe("PUT", self.random.choice(self.items[-NEW_ITEMS - 10 :]))

    def patch(self) -> None:
        self.describe("PATCH", self.random.choice(self.items[-NEW_ITEMS - 10 :]))

    def switch(self) -> None:
        key, word = (
            self.random.choice(self.items[-NEW_ITEMS - 30 :]),
            self.random.choice(["hide", "show", "show"]),
        )
        there = key in self.reference.things
        self.ask("POST", f"/v1/items/{key}/{word}", 200 if there else 404)
        if there:
            self.reference.things[key].hidden = word == "hide"

    def remove(self) -> None:
        key = self.random.choice(self.items[-NEW_ITEMS - 10 :])
        there = key in self.reference.things
        self.ask("DELETE", f"/v1/items/{key}", 200 if there else 404)
        if there:
            self.reference.remove(key)

    def an_item(self) -> None:
        key = self.random.choice(sorted(self.reference.things))
        answer = self.ask("GET", f"/v1/items/{key}")
        assert answer | {"media": sorted(answer["media"])} == self.reference.view(key)

    def missing(self) -> None:
        """What is not there is said to be not there."""
        gone = [key for key in self.items if key not in self.reference.things]
        if gone:
            key = self.random.choice(gone)
            self.ask("GET", f"/v1/items/{key}", 404)
            self.ask("GET", f"/v1/items/{key}/similar", 404)
        answer = self.ask("GET", "/v1/items", params={"limit": 200})
        assert {each["item"] for each in answer["items"]} == self.reference.things.keys()
        assert answer["total"] == len(self.reference.things)

    def similar(self) -> None:
        key = self.random.choice(sorted(self.reference.things))
        answer = self.ask("GET", f"/v1/items/{key}/similar", params={"k": 10})
        right = self.reference.nearest(key)
        told = {each["item"]: each["score"] for each in answer["items"]}
        best = sorted(right.values(), reverse=True)[:10]
        assert len(told) == len(best)
        np.testing.assert_allclose([*told.values()], best, atol=TOLERANCE)
        np.testing.assert_allclose([*told.values()], [right[each] for each in told], atol=TOLERANCE)

    def person(self) -> None:
        user = self.random.choice(self.people)
        answer = self.ask("GET", f"/v1/users/{user}")
        kept = [{name: each[name] for name in each if name != "user"} for each in self.reference.kept(user)]
        assert answer["user"] == user
        assert answer["events"] == kept
        assert len(answer["trained"]) == len(self.reference.trained(user))

    def forget(self) -> None:
        user = self.random.choice(self.people)
        answer = self.ask("DELETE", f"/v1/users/{user}")
        assert answer["forgotten"] == self.reference.forget(user)
        assert self.ask("GET", f"/v1/users/{user}") == {"user": user, "events": [], "trained": []}


def walk(run, folder, operations: int, seed: int) -> None:
    print(f"seed {seed}")
    Walk(run, folder / "events.db", seed).go(operations)


def test_five_hundred_operations_agree_with_the_reference(shop_run, tmp_path):
    walk(shop_run, tmp_path, 500, seed=1)


@pytest.mark.slow
def test_a_hundred_thousand_operations_agree_with_the_reference(shop_run, tmp_path):
    walk(shop_run, tmp_path, 100_000, seed=time.time_ns() % 2**32)
