"""The event store: one suite for SQLite and PostgreSQL, the databases themselves, and what kills survive."""

import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.event import listen

from palate.errors import (
    ConflictError,
    DataError,
    MissingExtraError,
    PalateError,
    StoreError,
    UnknownKeyError,
)
from palate.store.layout import STEPS, bring_up_to_date
from palate.store.opening import open_store
from palate.store.records import AppendResult, AuditLine, ItemChange, ItemState, StoredEvent
from tests.postgresql import new_database, new_place

ROOT = Path(__file__).parent.parent
DATABASES = ["sqlite file", "sqlite in memory", "postgresql"]
DURABLE = ["sqlite file", "postgresql"]


def a_url(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgresql":
        return new_place(request.getfixturevalue("postgresql"))
    return "sqlite://" if kind == "sqlite in memory" else f"sqlite:///{folder / 'events.db'}"


@pytest.fixture(params=DATABASES)
def store(request, tmp_path):
    with open_store(a_url(request.param, tmp_path, request)) as opened:
        yield opened


@pytest.fixture(params=DURABLE)
def url(request, tmp_path):
    return a_url(request.param, tmp_path, request)


def view(number: int, user: str = "ann", time: int = 0, value: float | None = None) -> StoredEvent:
    return StoredEvent(f"e{number}", user, f"i{number}", "view", time, value)


# The contract


def test_events_come_back_as_they_went_in(store):
    events = [
        StoredEvent("a/1", "안나 🫖", "10%_'\"\\;--", "Kauf", -1, 0.1),
        StoredEvent("a/2", "안나 🫖", "茶", "view", 2**63 - 1, -1e308),
        StoredEvent(" ", "안나 🫖", "x" * 1024, "view", 0, None),
    ]
    assert store.append(events) == AppendResult(stored=3, known=0)
    assert store.events_of("안나 🫖") == [events[0], events[2], events[1]]
    assert [each for _, each in store.after(0, 10)] == events
    assert store.count() == 3
    assert store.append([]) == AppendResult(0, 0)


def test_the_latest_are_ordered_by_time_and_then_by_arrival(store):
    store.append([view(1, time=5), view(2, time=3), view(3, time=5), view(9, user="bob", time=9)])
    store.append([view(4, time=4), view(5, time=5)])
    assert [each.item for each in store.latest("ann", 10)] == ["i2", "i4", "i1", "i3", "i5"]
    assert [each.item for each in store.latest("ann", 3)] == ["i1", "i3", "i5"]
    assert store.latest("ann", 0) == []
    assert store.latest("nobody", 10) == []


def test_a_known_event_is_counted_and_not_stored_again(store):
    assert store.append([view(1), view(2), view(1)]) == AppendResult(stored=2, known=1)
    assert store.append([view(2), view(3)]) == AppendResult(stored=1, known=1)
    assert [each.item for each in store.events_of("ann")] == ["i1", "i2", "i3"]


@pytest.mark.parametrize(
    "other",
    [
        view(1)._replace(user="bob"),
        view(1)._replace(item="i2"),
        view(1)._replace(event="buy"),
        view(1)._replace(time=1),
        view(1)._replace(value=0.0),
    ],
    ids=["user", "item", "event", "time", "value"],
)
def test_a_known_id_with_other_content_is_refused_with_its_whole_call(store, other):
    store.append([view(1)])
    with pytest.raises(ConflictError, match="'e1' is known with other content"):
        store.append([view(2), other, view(3)])
    with pytest.raises(ConflictError):
        store.append([view(5), view(5, time=1)])
    assert [each for _, each in store.after(0, 10)] == [view(1)]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (view(1)._replace(event_id=""), "'event_id' is ''"),
        (view(1)._replace(user="a\0b"), "may not hold the character 0"),
        (view(1)._replace(item="é" * 513), "has 1,026 bytes; at most 1,024"),
        (view(1)._replace(event="\ud800"), "no Unicode text"),
        (view(1)._replace(user=7), "'user' is 7; wanted a text"),
        (view(1)._replace(time=2**63), "wanted whole microseconds"),
        (view(1)._replace(time=1.5), "wanted whole microseconds"),
        (view(1)._replace(value=float("nan")), "wanted a finite number"),
        (view(1)._replace(value=10**400), "wanted a finite number"),
    ],
)
def test_what_a_database_could_not_give_back_is_refused_before_it_is_asked(store, event, words):
    with pytest.raises(DataError, match=words):
        store.append([view(2), event])
    assert store.count() == 0


def test_arrivals_are_read_in_pieces_and_numbers_are_not_given_twice(store):
    store.append([view(number, user=str(number % 3)) for number in range(10)])
    first = store.after(0, 4)
    rest = store.after(first[-1][0], 100)
    assert [each.event_id for _, each in first + rest] == [f"e{number}" for number in range(10)]
    last = rest[-1][0]
    assert store.forget(rest[-1][1].user) > 0  # the row of the highest number is gone
    store.append([view(20)])
    assert store.after(last, 10) == [(store.after(last, 1)[0][0], view(20))]
    assert store.after(last, 1)[0][0] > last


def test_who_is_forgotten_leaves_no_event_and_may_come_back(store):
    store.append([view(1), view(2), view(3, user="bob")])
    assert store.forget("ann") == 2
    assert store.forget("ann") == 0
    assert store.events_of("ann") == []
    assert store.events_of("bob") == [view(3, user="bob")]
    assert store.append([view(1)]) == AppendResult(stored=1, known=0)


def changes(store, sequence: int = 0) -> list[ItemChange]:
    return [change for _, change in store.item_changes_after(sequence)]


def test_the_latest_state_of_an_item_wins_and_comes_last(store):
    store.put_item("cup", {"title": "Tea cup", "tags": ["a", "茶\0"]}, {"photo": b"\0\xff", "clip": b""})
    store.put_item("pot", {}, {})
    seen = max(number for number, _ in store.item_changes_after(0))
    store.hide_item("cup")
    cup = ItemChange(
        "cup",
        ItemState.HIDDEN,
        True,
        {"title": "Tea cup", "tags": ["a", "茶\0"]},
        {"photo": b"\0\xff", "clip": b""},
    )
    assert changes(store, seen) == [cup]
    assert changes(store) == [ItemChange("pot", ItemState.SHOWN, True, {}, {}), cup]
    store.show_item("cup")
    assert changes(store, seen) == [cup._replace(state=ItemState.SHOWN)]
    store.put_item("cup", {"title": "Cup"}, {"photo": b"2"})
    assert changes(store, seen) == [
        ItemChange("cup", ItemState.SHOWN, True, {"title": "Cup"}, {"photo": b"2"})
    ]
    store.remove_item("cup")
    assert changes(store, seen) == [ItemChange("cup", ItemState.REMOVED, True, {}, {})]


def test_a_patch_is_laid_over_what_is_known(store):
    store.patch_item("pot", {"price": 3}, {})  # of the model's own catalogue
    store.hide_item("pot")
    store.patch_item("pot", {"title": None}, {"photo": b"1"})
    pot = ItemChange("pot", ItemState.HIDDEN, False, {"price": 3, "title": None}, {"photo": b"1"})
    assert changes(store) == [pot]
    store.patch_item("pot", {"photo": None}, {})
    assert changes(store) == [pot._replace(fields={**pot.fields, "photo": None}, media={})]
    store.patch_item("pot", {}, {"photo": b"2"})
    assert changes(store) == [pot._replace(media={"photo": b"2"})]


def test_what_was_removed_is_only_brought_back_whole(store):
    store.remove_item("cup")
    for change in (store.hide_item, store.show_item, lambda item: store.patch_item(item, {"title": "x"}, {})):
        with pytest.raises(UnknownKeyError, match="'cup' was removed"):
            change("cup")
    store.put_item("cup", {"title": "Cup"}, {})
    assert changes(store) == [ItemChange("cup", ItemState.SHOWN, True, {"title": "Cup"}, {})]


def test_items_that_cannot_be_kept_are_refused(store):
    with pytest.raises(DataError, match="values of JSON"):
        store.put_item("cup", {"price": float("nan")}, {})
    with pytest.raises(DataError, match="values of JSON"):
        store.patch_item("cup", {"price": object()}, {})
    with pytest.raises(DataError, match="'item' is ''"):
        store.remove_item("")
    with pytest.raises(DataError, match="name of a field"):
        store.put_item("cup", {}, {"": b"1"})
    assert changes(store) == []


def test_changes_of_many_items_come_in_the_order_of_their_last_change(store):
    for number in range(120):
        store.put_item(str(number), {}, {"photo": b"x", "clip": b"y"} if number % 2 else {})
    store.hide_item("7")
    found = changes(store)
    assert [each.item for each in found] == [str(n) for n in range(120) if n != 7] + ["7"]
    assert all(len(each.media) == (2 if int(each.item) % 2 else 0) for each in found)


def test_the_audit_keeps_every_line_in_order(store):
    lines = [AuditLine(5, "admin", "forget", "ann"), AuditLine(3, "admin", "reload", "runs/second")]
    for line in lines:
        store.audit(line.who, line.action, line.subject, line.time)
    assert store.audit_lines(10) == lines
    assert store.audit_lines(1) == lines[1:]


def test_a_closed_store_says_so(store):
    store.append([view(1)])
    store.close()
    store.close()
    for question in (lambda: store.append([view(2)]), lambda: store.latest("ann", 1), store.count):
        with pytest.raises(StoreError, match="is closed"):
            question()


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
EVENTS = st.builds(
    StoredEvent,
    event_id=KEYS,
    user=st.just("ann"),
    item=KEYS,
    event=KEYS,
    time=st.integers(1 - 2**63, 2**63 - 1),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, max_size=6, unique_by=lambda each: each.event_id))
def test_every_text_time_and_value_comes_back(store, events):
    store.forget("ann")
    assert store.append(events) == AppendResult(len(events), 0)
    assert store.append(events) == AppendResult(0, len(events))
    assert store.events_of("ann") == sorted(events, key=lambda each: each.time)


def test_a_long_random_course_equals_a_list_in_memory(store):
    """Every method against the slow and obvious way."""
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = random.Random(seed)
    kept: list[StoredEvent] = []
    items: dict[str, ItemChange] = {}
    for step in range(150):
        user, item = f"u{generator.randrange(4)}", f"i{generator.randrange(5)}"
        action = generator.choice(["append"] * 4 + ["forget", "put", "patch", "hide", "show", "remove"])
        before = items.get(item, ItemChange(item, ItemState.SHOWN, False, {}, {}))
        if action == "append":
            new = [view(generator.randrange(200), user, time=generator.randrange(9)) for _ in range(4)]
            known = {each.event_id: each for each in kept}
            fresh = list({each.event_id: each for each in new if each.event_id not in known}.values())
            known |= {each.event_id: each for each in reversed(new) if each.event_id not in known}
            if any(known[each.event_id] != each for each in new):
                with pytest.raises(ConflictError):
                    store.append(new)
            else:
                assert store.append(new) == AppendResult(len(fresh), len(new) - len(fresh))
                kept += fresh
        elif action == "forget":
            assert store.forget(user) == sum(each.user == user for each in kept)
            kept = [each for each in kept if each.user != user]
        elif action in ("patch", "hide", "show") and before.state == ItemState.REMOVED:
            with pytest.raises(UnknownKeyError):
                store.patch_item(item, {}, {}) if action == "patch" else getattr(store, f"{action}_item")(
                    item
                )
        else:
            fields, media = {generator.choice("ab"): step}, {"photo": bytes([step])} if step % 3 else {}
            if action == "put":
                store.put_item(item, fields, media)
                after = ItemChange(item, ItemState.SHOWN, True, fields, media)
            elif action == "patch":
                store.patch_item(item, fields, media)
                after = before._replace(fields=before.fields | fields, media=before.media | media)
            elif action == "remove":
                store.remove_item(item)
                after = ItemChange(item, ItemState.REMOVED, True, {}, {})
            else:
                getattr(store, f"{action}_item")(item)
                after = before._replace(state=ItemState.HIDDEN if action == "hide" else ItemState.SHOWN)
            items.pop(item, None)
            items[item] = after  # the latest change comes last
        own = sorted((each for each in kept if each.user == user), key=lambda each: each.time)
        assert store.events_of(user) == own
        assert store.latest(user, 3) == own[-3:]
    assert [each for _, each in store.after(0, 10_000)] == kept
    assert store.count() == len(kept)
    assert changes(store) == list(items.values())


# Many threads, and other processes


def in_threads(number: int, work) -> None:
    """``work(n)`` in each of so many threads; the first error of one is raised here."""
    errors: list[BaseException] = []

    def guarded(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_calls_at_the_same_time_are_each_told_what_became_of_their_own_events(store):
    store.append([view(0)])
    told: dict[int, list] = {}

    def work(n: int) -> None:
        told[n] = []
        for step in range(8):
            own = [view(1000 * n + step, user=f"u{n}", time=step), view(0)]
            told[n].append(store.append(own))
            with pytest.raises(ConflictError):
                store.append([view(900_000 + n), view(0, time=7)])
            assert store.latest(f"u{n}", 1) == own[:1]

    in_threads(8, lambda n: work(n + 1))
    assert all(results == [AppendResult(1, 1)] * 8 for results in told.values())
    assert store.count() == 1 + 8 * 8
    numbers = [number for number, _ in store.after(0, 1000)]
    assert numbers == sorted(set(numbers))


def is_held(lock) -> bool:
    """Whether another thread has the lock."""
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True


def test_calls_that_wait_share_one_commit(tmp_path):
    """While one writer is held up, many calls arrive; then they need one commit, and not one each."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    with open_store(url) as store, sqlite3.connect(tmp_path / "events.db", isolation_level=None) as other:
        commits = []
        listen(store._writing_engine, "commit", commits.append)
        other.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=store.append, args=([view(n)],)) for n in range(20)]
        threads[0].start()
        while store._waiting or not is_held(store._turn):  # until it waits for the file
            time.sleep(0.001)
        for thread in threads[1:]:
            thread.start()
        while len(store._waiting) < 19:
            time.sleep(0.001)
        other.execute("COMMIT")
        for thread in threads:
            thread.join()
        assert store.count() == 20
        assert len(commits) == 2
    other.close()


def test_readers_that_follow_the_numbers_miss_nothing(url):
    """Two stores write to one database and a third reads along: numbers never appear behind its back."""
    with open_store(url) as one, open_store(url) as two, open_store(url) as reader:
        done = threading.Event()
        read: list[tuple[int, StoredEvent]] = []

        def follow() -> None:
            while True:
                finished = done.is_set()
                read.extend(found := reader.after(read[-1][0] if read else 0, 7))
                if finished and not found:
                    return

        following = threading.Thread(target=follow)
        following.start()
        in_threads(4, lambda n: [(one, two)[n % 2].append([view(100 * n + s)]) for s in range(20)])
        done.set()
        following.join()
        assert read == reader.after(0, 10_000)
        assert len(read) == 4 * 20


def test_stores_may_be_opened_at_the_same_time(url):
    def work(n: int) -> None:
        with open_store(url) as store:
            store.append([view(n)])

    in_threads(6, work)
    with open_store(url) as store:
        assert store.count() == 6


def test_a_store_that_is_opened_again_knows_all(url):
    with open_store(url) as store:
        store.append([view(1, value=2.5)])
        store.put_item("cup", {"title": "Cup"}, {"photo": b"1"})
        store.audit("admin", "forget", "bob", 1)
    with open_store(url, create=False) as store:
        assert store.append([view(1, value=2.5)]) == AppendResult(0, 1)
        assert changes(store) == [ItemChange("cup", ItemState.SHOWN, True, {"title": "Cup"}, {"photo": b"1"})]
        assert store.audit_lines(5) == [AuditLine(1, "admin", "forget", "bob")]


POSTER = """
import sys, threading
from palate.store.opening import open_store
from palate.store.records import StoredEvent

store, first = open_store(sys.argv[1]), int(sys.argv[2])
lock = threading.Lock()

def post(thread):
    for number in range(first + thread, 10**9, 4):
        event = StoredEvent(f"e{number}", f"u{number % 5}", "cup", "view", number)
        store.append([event, event._replace(event_id=f"again{number}")])
        with lock:
            print(number, flush=True)

for thread in range(4):
    threading.Thread(target=post, args=(thread,)).start()
"""


def survives(url: str, kills: int) -> None:
    """A process posts numbered events and is killed, again and again: what it was told of is there, once."""
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = random.Random(seed)
    told: set[int] = set()
    first = 0
    for _ in range(kills):
        command = [sys.executable, "-c", POSTER, url, str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as poster:
            assert poster.stdout is not None
            told.add(int(poster.stdout.readline()))  # it has begun; now it is killed at any moment
            killing = threading.Timer(generator.uniform(0, 0.3), poster.kill)
            killing.start()
            lines = poster.stdout.read().split("\n")
            killing.join()
        assert poster.returncode == -9
        told |= {int(line) for line in lines[:-1]}  # what follows the last line break was cut off
        first = max(max(told) - 8, 0)  # some are posted again
    with open_store(url, create=False) as store:
        stored = [each.event_id for _, each in store.after(0, 10**9)]
    assert len(stored) == len(set(stored))
    numbers = {int(name[1:]) for name in stored if name.startswith("e")}
    assert told <= numbers
    assert {f"again{number}" for number in numbers} | {f"e{number}" for number in numbers} == set(stored)


def test_events_that_were_acknowledged_survive_kills(url):
    survives(url, 5)


@pytest.mark.slow
def test_events_that_were_acknowledged_survive_fifty_kills(url):
    survives(url, 50)


# The databases themselves


def test_a_newer_store_is_refused_and_left_as_it_is(url):
    with open_store(url) as store, store.writing() as connection:
        connection.execute(text("UPDATE palate_store_version SET version = 99"))
    with pytest.raises(StoreError, match=r"version 99, and this Palate knows versions up to 2\. Use a newer"):
        open_store(url)


def test_an_older_store_is_led_to_the_newest_version_step_by_step(url):
    def step(words: str):
        return lambda connection: connection.execute(text(words))

    steps = (
        *STEPS,
        step("ALTER TABLE palate_audit ADD COLUMN place TEXT"),
        step("UPDATE palate_audit SET place = 'Ulm'"),
    )
    with open_store(url) as store:
        store.audit("admin", "forget", "ann", 1)
        for taken in (2, 3, 3):
            with store.writing() as connection:
                bring_up_to_date(connection, steps[:taken])
        with store.writing() as connection:
            assert connection.execute(text("SELECT version FROM palate_store_version")).all() == [(4,)]
            assert connection.execute(text("SELECT place FROM palate_audit")).all() == [("Ulm",)]


def test_a_store_of_the_first_version_learns_which_model_answers(url):
    with open_store(url) as store, store.writing() as connection:
        connection.execute(text("DROP TABLE palate_models"))
        connection.execute(text("UPDATE palate_store_version SET version = 1"))
    with open_store(url) as store:
        assert store.choice("tea") is None
        assert store.choose("tea", "new", None, "new").model == "new"


def test_the_last_choice_of_a_model_counts_for_its_run_alone(url):
    with open_store(url) as store:
        first = store.choose("tea", "one", None, "one", after=0)
        second = store.choose("tea", "two", "one", "two", after=first.number)
        assert store.choose("tea", "late", None, "late", after=first.number) == second
        store.choose("pots", "other", None, "other")
        assert store.choice("tea") == second
        assert (second.model, second.previous, second.exported) == ("two", "one", "two")
        assert second.number > first.number


def test_a_step_that_fails_leaves_the_old_version(url):
    def half(connection) -> None:
        connection.execute(text("ALTER TABLE palate_audit ADD COLUMN place TEXT"))
        connection.execute(text("UPDATE there_is_no_such_table SET x = 1"))

    with open_store(url) as store:
        with pytest.raises(StoreError), store.writing() as connection:
            bring_up_to_date(connection, (*STEPS, half))
        with store.writing() as connection:
            assert connection.execute(text("SELECT version FROM palate_store_version")).all() == [(2,)]
        with pytest.raises(StoreError), store.writing() as connection:
            connection.execute(text("SELECT place FROM palate_audit"))


def test_there_must_be_a_store_where_none_may_be_made(url, tmp_path):
    with pytest.raises(StoreError, match="There is no event store"):
        open_store(url, create=False)
    assert not (tmp_path / "events.db").exists()


def test_sqlite_waits_for_the_disk_and_keeps_its_file_from_others(tmp_path):
    path = tmp_path / "events.db"
    with open_store(f"sqlite:///{path}") as store, store.writing() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous")
        ]
        assert found == ["wal", 2]
        assert [file.stat().st_mode & 0o077 for file in tmp_path.iterdir()] == [0] * 3


def test_sqlite_keeps_no_byte_of_who_is_forgotten(tmp_path):
    with open_store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        store.append([view(n, user=f"person{n % 2}", time=n) for n in range(500)])
        store.forget("person1")
        held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"person0" in held
        assert b"person1" not in held


def test_postgresql_waits_for_the_disk_where_the_server_would_not(postgresql):
    url = new_database(postgresql)
    with open_store(url) as store, store.writing() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with open_store(url) as store, store.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


def test_postgresql_in_another_encoding_is_refused(postgresql):
    url = new_database(postgresql, "ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreError, match="encoded as LATIN1; wanted UTF8"):
        open_store(url)


def test_a_connection_that_broke_is_replaced(postgresql):
    with open_store(new_place(postgresql)) as store:
        store.append([view(1)])
        with store.writing() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        assert store.latest("ann", 5) == [view(1)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cr%2Ft@localhost:1/shop",
        "postgresql://ann@localhost:1/shop?password=s3cr%2Ft",
        "postgresql://ann:s3cr/t@localhost:port/shop",
        "mysql://ann:s3cr%2Ft@localhost/shop",
        "sqlite:////there/is/no/such/folder/events.db",
    ],
)
def test_no_error_holds_a_password(url, caplog):
    with pytest.raises(PalateError) as raised, caplog.at_level("DEBUG"):
        open_store(url)
    assert not isinstance(raised.value, MissingExtraError)
    for told in (str(raised.value), repr(raised.value), caplog.text):
        assert "s3cr" not in told


def test_neither_a_store_nor_its_errors_tell_the_password(postgresql):
    url = new_place(postgresql).replace("postgres@", "postgres:s3cret@")
    with open_store(url) as store:
        assert "s3cret" not in repr(store)
        with store.writing() as connection:
            connection.exec_driver_sql("DROP TABLE palate_events")
        with pytest.raises(StoreError, match=r"postgres:\*\*\*@") as raised:
            store.append([view(1, user="a person")])
        assert "s3cret" not in str(raised.value)
        assert "a person" not in str(raised.value)


def test_the_store_is_there_without_torch_and_polars():
    code = (
        "import sys, palate.store.opening as opening; opening.open_store('sqlite://').close(); "
        "print([name for name in ('torch', 'polars', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
