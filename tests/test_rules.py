"""Rules: a list equals the slow walk down everything; each rule has its known answer; faults are told."""

import threading

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import SettingsError
from palate.retrieve.approximate import ApproximateIndex
from palate.retrieve.catalogue import Catalogue
from palate.retrieve.fallback import Fallback
from palate.retrieve.index import ExactIndex
from palate.retrieve.rule_settings import RuleSettings
from palate.retrieve.rules import DAY, Past, Request, Rules
from palate.schema import UNKNOWN_TIME, Field, FieldKind, IdMap, Schema
from tests.worlds import lists_of_few_items

SCHEMA = Schema(
    fields=(
        Field("brand", FieldKind.CATEGORY),
        Field("tags", FieldKind.CATEGORIES),
        Field("stock", FieldKind.NUMBER),
        Field("title", FieldKind.TEXT),
    ),
    events=("view", "buy"),
    event_weights=(1.0, 1.0),
    target_events=("buy",),
)
NOW = 1_700_000_000_000_000


def make_catalogue(brands, tags=None, stock=None, *, allowed=None, new=None, schema=SCHEMA):
    """Items ``i0``, ``i1``, … with ids 2, 3, …"""
    items = len(brands)
    table = pl.DataFrame(
        {
            "item": [None, None, *(f"i{item}" for item in range(items))],
            "brand": [None, None, *brands],
            "tags": [None, None, *(tags or [None] * items)],
            "stock": [None, None, *(stock or [None] * items)],
            "title": ["words"] * (items + 2),
        },
        schema={
            "item": pl.String,
            "brand": pl.String,
            "tags": pl.List(pl.String),
            "stock": pl.Float64,
            "title": pl.String,
        },
    )

    def mask(ids, default):
        found = np.full(items + 2, default)
        found[:2] = False
        if ids is not None:
            found[:] = False
            found[ids] = True
        return found

    return Catalogue(
        IdMap(pl.Series([f"i{item}" for item in range(items)])),
        table,
        schema,
        allowed=mask(allowed, True),
        new=mask(new, False),
    )


def falling(items):
    """Vectors by which item 2 is the best, 3 the next, …, and the state that says so."""
    vectors = np.zeros((items + 2, 2), np.float32)
    vectors[2:, 0] = np.arange(items, 0, -1)
    return vectors, np.array([1.0, 0.0], np.float32)


def ids_of(picks):
    return [pick.id for pick in picks]


def chosen(rules, items=8, index=None, **request):
    vectors, state = falling(items)
    return rules.select(index or ExactIndex(vectors), Request(state, **{"k": 4, "now": NOW, **request}))


def rules_of(catalogue, **tree):
    return Rules(RuleSettings.model_validate(tree), catalogue)


# ---- the slow and obvious way ------------------------------------------------------------------------------


def slow_list(world, request, popularity=None):
    """Look at every item for every place; no masks, no search, no code of ours but the draw of places."""
    rules, table, vectors = world["tree"], world["items"], world["vectors"]
    past = list(
        zip(request.past.item.tolist(), request.past.event.tolist(), request.past.time.tolist(), strict=True)
    )
    score = {item: float(vectors[item] @ request.state) for item in table}
    if request.bonus is not None:
        for item, value in zip(request.bonus[0].tolist(), request.bonus[1].tolist(), strict=True):
            if item in score:
                score[item] += value

    def hidden(item):
        row = table[item]
        if not row["allowed"] or f"i{item - 2}" in rules.get("unavailable", ()) or item in request.exclude:
            return True
        for rule in rules.get("available", ()):
            if "above" in rule:
                value, holds = row["stock"], row["stock"] is not None and row["stock"] > rule["above"]
            else:
                value, holds = row["brand"], row["brand"] in rule["any_of"]
            if not (holds or (value is None and rule.get("missing"))):
                return True
        wanted = [*rules.get("categories", ())]
        wanted += [{"field": name, "any_of": labels} for name, labels in request.any_of.items()]
        wanted += [{"field": name, "none_of": labels} for name, labels in request.none_of.items()]
        for rule in wanted:
            labels = labels_of(item, rule["field"])
            if "any_of" in rule and not labels & set(rule["any_of"]):
                return True
            if labels & set(rule.get("none_of", ())):
                return True
        for met, event, time in past:
            if met != item:
                continue
            if request.filter_seen:
                return True
            for rule in rules.get("seen", ()):
                of_event = "event" not in rule or SCHEMA.events[event] == rule["event"]
                recent = "days" not in rule or time == UNKNOWN_TIME or time > request.now - rule["days"] * DAY
                if of_event and recent:
                    return True
        return False

    def labels_of(item, field):
        cell = table[item][field]
        return set() if cell is None else {cell} if isinstance(cell, str) else set(cell)

    counts = {}

    def fits(item):
        return (
            item not in taken
            and not hidden(item)
            and all(
                counts.get((cap["field"], label), 0) < cap["most"]
                for cap in rules.get("caps", ())
                for label in labels_of(item, cap["field"])
            )
        )

    def take(item):
        taken.add(item)
        for cap in rules.get("caps", ()):
            for label in labels_of(item, cap["field"]):
                counts[cap["field"], label] = counts.get((cap["field"], label), 0) + 1

    taken, pinned = set(), {}
    for pin in sorted(rules.get("pins", ()), key=lambda pin: pin["place"]):
        item, place = int(pin["item"][1:]) + 2, pin["place"] - 1
        page = not pin.get("pages") or request.page in pin["pages"]
        audience = pin.get("audience", "everyone")
        person = audience == "everyone" or (audience == "known") == bool(past)
        if place < request.k and page and person and place not in pinned and fits(item):
            pinned[place] = item
            take(item)
    free = [place for place in range(request.k) if place not in pinned]
    explore = rules.get("explore", {})
    new_places = []
    if explore.get("share") and free:
        generator = np.random.default_rng([explore.get("seed", 0), request.draw])
        number = min(int(explore["share"] * len(free) + generator.random()), len(free))
        new_places = [free[at] for at in generator.choice(len(free), number, replace=False)]
    by_taste = {item: score[item] for item in table}
    by_new = {item: score[item] for item in table if table[item]["new"]}
    stages = (
        [("taste", by_taste)]
        if popularity is None
        else [
            ("popular", {item: of for item, of in popularity.items() if of > 0}),
            ("new", by_new),
            ("taste", by_taste),
        ]
    )
    lead_places = []
    if popularity is not None and len(request.context):
        of = [vectors[item] / max(np.linalg.norm(vectors[item]), 1e-12) for item in request.context]
        near = np.mean(of, axis=0)
        by_context = {item: float(vectors[item] @ near) for item in table if item not in request.context}
        lead_places = free[: round(rules.get("fallback", {}).get("context_share", 0.5) * len(free))]
    result = []
    for place in range(request.k):
        if place in pinned:
            result.append((pinned[place], "pinned"))
            continue
        order = [("new", by_new), *stages] if place in new_places else stages
        if place in lead_places and place not in new_places:
            order = [("context", by_context), *stages]
        for name, scores in order:
            fitting = [item for item in scores if fits(item)]
            if fitting:
                best = min(fitting, key=lambda item: (-scores[item], item))
                take(best)
                result.append((best, name))
                break
    return result


@st.composite
def worlds(draw):
    """Few brands and tags, so that caps and filters meet; scores are whole numbers, and many are equal."""
    number, seed = draw(st.integers(1, 40)), draw(st.integers(0, 2**31))
    generator = np.random.default_rng(seed)
    brands = [
        str(name) if name != "none" else None for name in generator.choice(["a", "b", "c", "none"], number)
    ]
    tags = [[str(tag) for tag in ("x", "y", "z") if generator.random() < 0.4] or None for _ in range(number)]
    stock = [None if generator.random() < 0.2 else float(generator.integers(0, 3)) for _ in range(number)]
    allowed = [item for item in range(2, number + 2) if generator.random() < 0.9]
    new = [item for item in range(2, number + 2) if generator.random() < 0.3]
    have = {name for name in brands if name}
    have_tags = {tag for cell in tags for tag in cell or ()}

    def some(names):
        return sorted(name for name in names if generator.random() < 0.6)

    tree = {}
    if draw(st.booleans()):
        tree["caps"] = [{"field": "brand", "most": draw(st.integers(1, 3))}]
        if draw(st.booleans()):
            tree["caps"].append({"field": "tags", "most": draw(st.integers(1, 4))})
    if draw(st.booleans()):
        tree["available"] = [{"field": "stock", "above": 0, "missing": draw(st.booleans())}]
    if draw(st.booleans()) and (labels := some(have)):
        tree.setdefault("available", []).append(
            {"field": "brand", "any_of": labels, "missing": draw(st.booleans())}
        )
    if draw(st.booleans()) and (labels := some(have_tags)):
        tree["categories"] = [{"field": "tags", draw(st.sampled_from(["any_of", "none_of"])): labels}]
    if draw(st.booleans()):
        tree["seen"] = [{"event": "buy"}, {"days": 5}]
    tree["unavailable"] = [f"i{item}" for item in range(number) if generator.random() < 0.05]
    tree["pins"] = [
        {
            "item": f"i{generator.integers(0, number)}",
            "place": int(generator.integers(1, 8)),
            "pages": draw(st.sampled_from([[], ["home"]])),
            "audience": draw(st.sampled_from(["everyone", "newcomers", "known"])),
        }
        for _ in range(draw(st.integers(0, 3)))
    ]
    tree["explore"] = {"share": draw(st.sampled_from([0.0, 0.3, 1.0])), "seed": draw(st.integers(0, 9))}
    vectors = generator.integers(-3, 4, (number + 2, 4)).astype(np.float32)
    catalogue = make_catalogue(brands, tags, stock, allowed=allowed, new=new)
    items = {
        item: {
            "brand": brands[item - 2],
            "tags": tags[item - 2],
            "stock": stock[item - 2],
            "allowed": item in allowed,
            "new": item in new,
        }
        for item in range(2, number + 2)
    }

    def ids(most):
        return generator.integers(2, number + 2, generator.integers(0, most))

    def ask():
        met = ids(8) if generator.random() < 0.7 else ids(1)
        times = NOW - generator.integers(0, 10, len(met)) * DAY
        times[generator.random(len(met)) < 0.2] = UNKNOWN_TIME
        raised = np.unique(ids(6))
        return Request(
            state=generator.integers(-3, 4, 4).astype(np.float32),
            k=int(generator.integers(1, 12)),
            past=Past(met, generator.integers(0, 2, len(met)), times),
            now=NOW,
            filter_seen=bool(generator.random() < 0.3),
            any_of={"brand": ("a", "b", "nobody's")} if generator.random() < 0.2 else {},
            none_of={"tags": ("x",)} if generator.random() < 0.2 else {},
            exclude=ids(4),
            bonus=(raised, generator.integers(-9, 9, len(raised)).astype(np.float32)),
            page="home" if generator.random() < 0.5 else "",
            draw=int(generator.integers(0, 100)),
            context=ids(3),
        )

    world = {"tree": tree, "items": items, "vectors": vectors, "catalogue": catalogue}
    return world, [ask() for _ in range(3)], generator.integers(0, 4, number + 2)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_a_list_is_what_the_walk_down_everything_gives(drawn):
    world, requests, _ = drawn
    rules = rules_of(world["catalogue"], **world["tree"])
    lists = rules.select_all(ExactIndex(world["vectors"]), requests)
    for request, picks in zip(requests, lists, strict=True):
        assert [(pick.id, pick.source) for pick in picks] == slow_list(world, request)


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_a_fallback_is_the_same_walk_with_other_places(drawn):
    world, requests, counts = drawn
    fallback = Fallback(rules_of(world["catalogue"], **world["tree"]))
    counts[:2] = 0
    items = np.repeat(np.arange(len(counts)), counts)
    fallback.popularity.add(items, np.full(len(items), NOW))
    for request in requests:
        picks = fallback.select(ExactIndex(world["vectors"]), request)
        expected = slow_list(world, request, dict(enumerate(counts.tolist())))
        assert [pick.source for pick in picks] == [name for _, name in expected]
        if not len(request.context):  # lengths of vectors make scores of the context that rounding may order
            assert [pick.id for pick in picks] == [item for item, _ in expected]


@settings(max_examples=20, deadline=None)
@given(worlds(), st.sampled_from([ExactIndex, ApproximateIndex]))
def test_k_items_come_back_whenever_k_exist_and_all_are_allowed(drawn, kind):
    """With caps on one field of single labels no list could be longer than the one that the labels allow."""
    world, requests, _ = drawn
    tree = {**world["tree"], "caps": [{"field": "brand", "most": 2}]}
    rules, index = rules_of(world["catalogue"], **tree), kind(world["vectors"])
    for request in requests:
        mask = rules.allowed(request.any_of, request.none_of).copy()
        mask[rules.excluded(request)] = False
        brands = [world["items"][item]["brand"] for item in np.flatnonzero(mask).tolist()]
        longest = sum(min(2, brands.count(name)) for name in {*brands} - {None}) + brands.count(None)
        with lists_of_few_items():
            ids = ids_of(rules.select(index, request))
        assert len(ids) == len(set(ids)) == min(request.k, longest)
        assert mask[ids].all()
        shown = [world["items"][item]["brand"] for item in ids]
        assert all(shown.count(name) <= 2 for name in {*shown} - {None})


# ---- known answers -----------------------------------------------------------------------------------------


def test_without_rules_a_list_is_the_best_by_taste():
    rules = rules_of(make_catalogue(["a"] * 8))
    assert [tuple(pick) for pick in chosen(rules, k=2)] == [(2, 8.0, "taste"), (3, 7.0, "taste")]
    assert len(chosen(rules, k=100)) == 8


def test_caps_skip_what_would_be_one_too_many():
    rules = rules_of(
        make_catalogue(["a", "a", "a", "b", None, "b", "b", None]), caps=[{"field": "brand", "most": 2}]
    )
    assert ids_of(chosen(rules, k=8)) == [2, 3, 5, 6, 7, 9]
    tagged = make_catalogue(["a"] * 4, [["x", "y"], ["y"], ["x"], ["z"]])
    assert ids_of(chosen(rules_of(tagged, caps=[{"field": "tags", "most": 1}]), items=4)) == [2, 5]


def test_caps_reach_far_beyond_the_first_search():
    """One brand fills the first three hundred places by taste, the next one the three hundred after them."""
    brands = ["a"] * 300 + ["b"] * 300 + ["c"] * 3
    rules = rules_of(make_catalogue(brands), caps=[{"field": "brand", "most": 1}])
    assert ids_of(chosen(rules, items=603, k=5)) == [2, 302, 602]


def test_pins_have_their_places_and_obey_everything_else():
    pins = [{"item": "i5", "place": 1}, {"item": "i6", "place": 3}]
    rules = rules_of(make_catalogue(["a"] * 8), pins=pins)
    picks = chosen(rules)
    assert ids_of(picks) == [7, 2, 8, 3]
    assert [pick.source for pick in picks] == ["pinned", "taste", "pinned", "taste"]
    assert picks[0].score == 3.0
    assert ids_of(chosen(rules, k=2)) == [7, 2]
    assert ids_of(chosen(rules, exclude=np.array([7]))) == [2, 3, 8, 4]
    assert ids_of(chosen(rules, k=9)) == [7, 2, 8, 3, 4, 5, 6, 9]
    rules.catalogue.hide(np.array([8]))
    assert ids_of(chosen(rules)) == [7, 2, 3, 4]


@pytest.mark.parametrize(
    ("condition", "request_", "holds"),
    [
        ({"pages": ["home"]}, {"page": "home"}, True),
        ({"pages": ["home"]}, {"page": "cart"}, False),
        ({"audience": "newcomers"}, {}, True),
        ({"audience": "known"}, {}, False),
        ({"audience": "known"}, {"past": Past(*np.array([[5], [0], [NOW]]))}, True),
        ({"since": "2023-11-14T00:00:00Z"}, {}, True),
        ({"since": "2023-11-15T00:00:00Z"}, {}, False),
        ({"until": "2023-11-15T00:00:00+01:00"}, {}, True),
        ({"until": "2023-11-14T00:00:00+01:00"}, {}, False),
        ({"until": "2033-11-14T00:00:00+01:00"}, {"now": UNKNOWN_TIME}, False),
    ],
)
def test_a_pin_holds_under_its_conditions(condition, request_, holds):
    rules = rules_of(make_catalogue(["a"] * 8), pins=[{"item": "i7", "place": 1, **condition}])
    assert (ids_of(chosen(rules, **request_))[0] == 9) == holds


def test_the_second_pin_of_a_place_stands_in_for_the_first():
    pins = [{"item": "i6", "place": 1}, {"item": "i7", "place": 1}]
    rules = rules_of(make_catalogue(["a"] * 8), pins=pins)
    assert ids_of(chosen(rules, k=2)) == [8, 2]
    assert ids_of(chosen(rules, k=2, exclude=np.array([8]))) == [9, 2]


def test_what_was_met_comes_back_after_its_days():
    rules = rules_of(
        make_catalogue(["a"] * 8), seen=[{"event": "buy", "days": 30}, {"event": "view", "days": 1}]
    )
    past = Past(
        np.array([2, 3, 4, 5, 6]),
        np.array([1, 1, 0, 0, 1]),  # bought, bought, viewed, viewed, bought
        NOW - np.array([29 * DAY, 31 * DAY, DAY // 2, 2 * DAY, 0]),
    )
    assert ids_of(chosen(rules, past=past)) == [3, 5, 7, 8]
    assert ids_of(chosen(rules, past=past, filter_seen=True)) == [7, 8, 9]
    assert ids_of(chosen(rules, past=past, now=UNKNOWN_TIME)) == [7, 8, 9]


def test_new_items_have_their_share_of_places():
    rules = rules_of(make_catalogue(["a"] * 40, new=range(30, 42)), explore={"share": 0.25, "seed": 3})
    lists = [chosen(rules, items=40, k=10, draw=draw) for draw in range(200)]
    numbers = [sum(pick.source == "new" for pick in picks) for picks in lists]
    assert set(numbers) == {2, 3}
    assert np.mean(numbers) == pytest.approx(2.5, abs=0.15)
    for picks in lists:
        assert [pick.id for pick in picks if pick.source == "new"] == list(range(30, 30 + 3))[: len(picks)][
            : sum(p.source == "new" for p in picks)
        ]
    places = np.bincount(
        [place for picks in lists for place, pick in enumerate(picks) if pick.source == "new"]
    )
    assert places.min() > 25  # every place has its turn: 50 on average
    assert chosen(rules, items=40, k=10, draw=7) == lists[7]


def test_labels_and_numbers_say_what_can_be_had():
    catalogue = make_catalogue(["yes", "no", None, "yes"], stock=[0.0, 5.0, None, 2.0])

    def listed(**rule):
        return ids_of(chosen(rules_of(catalogue, available=[rule]), items=4))

    assert listed(field="brand", any_of=["yes"]) == [2, 5]
    assert listed(field="brand", any_of=["yes"], missing=True) == [2, 4, 5]
    assert listed(field="stock", above=0) == [3, 5]
    assert listed(field="stock", above=0, missing=True) == [3, 4, 5]


def test_requests_filter_by_any_field_of_labels():
    rules = rules_of(make_catalogue(["a", "b", "c", None], [["x"], ["x", "y"], None, ["y"]]))

    def listed(**request):
        return ids_of(chosen(rules, items=4, **request))

    assert listed(any_of={"brand": ("a", "b")}) == [2, 3]
    assert listed(none_of={"brand": ("a",)}) == [3, 4, 5]
    assert listed(any_of={"tags": ("y",), "brand": ("b",)}) == [3]
    assert listed(any_of={"brand": ("unheard of",)}) == []
    with pytest.raises(SettingsError, match=r"'brnad' is no field of the items. Did you mean 'brand'"):
        listed(any_of={"brnad": ("a",)})
    with pytest.raises(SettingsError, match="k is 0"):
        listed(k=0)


def test_changes_of_the_catalogue_hold_at_once():
    catalogue = make_catalogue(["a", "b", "c"], [["x"], None, ["y"]], [1.0, 1.0, 1.0])
    rules = rules_of(catalogue, available=[{"field": "stock", "above": 0}])
    vectors, state = falling(3)
    index = ExactIndex(vectors)

    def listed(**request):
        return ids_of(rules.select(index, Request(state, **request)))

    assert listed() == [2, 3, 4]
    catalogue.hide(np.array([2]))
    assert listed() == [3, 4]
    catalogue.show(np.array([2]))
    catalogue.put(np.array([3]), pl.DataFrame({"stock": [0.0]}), new=False)
    assert listed() == [2, 4]
    catalogue.put(np.array([3]), pl.DataFrame({"stock": [9.0], "brand": ["z"]}), new=False)
    assert (listed(), listed(any_of={"brand": ("z",)}), listed(any_of={"brand": ("b",)})) == (
        [2, 3, 4],
        [3],
        [],
    )
    index.add(np.array([6]), np.array([[9.0, 0.0]]))
    assert listed() == [2, 3, 4]  # in the index, and not yet in the catalogue
    table = pl.DataFrame({"stock": [1.0], "tags": [["y", "fresh"]]})
    catalogue.put(np.array([6]), table, new=True)
    assert listed() == [6, 2, 3, 4]
    assert listed(any_of={"tags": ("y",)}) == [6, 4]
    assert listed(any_of={"tags": ("fresh",)}) == [6]
    explore = rules_of(catalogue, explore={"share": 1.0}, caps=[{"field": "tags", "most": 1}])
    assert [tuple(pick)[::2] for pick in explore.select(index, Request(state, k=2))] == [
        (6, "new"),
        (2, "taste"),
    ]


def test_lists_are_whole_while_the_catalogue_changes():
    """Items get labels that nobody had before, and new items come, while lists under caps are made."""
    vectors, state = falling(200)
    catalogue, index = make_catalogue(["a"] * 150 + ["b"] * 50), ExactIndex(vectors)
    rules, done, faults = rules_of(catalogue, caps=[{"field": "brand", "most": 2}]), threading.Event(), []

    def change():
        for step in range(400):
            catalogue.put(np.array([2 + step % 100]), pl.DataFrame({"brand": [f"brand {step}"]}), new=False)
            catalogue.put(np.array([202 + step]), pl.DataFrame({"brand": ["a"]}), new=True)
            catalogue.hide(np.array([102 + step % 10]))
        done.set()

    def look():
        try:
            while not done.is_set():
                picks = rules.select(index, Request(state, 4, any_of={"brand": ("a", "b")}))
                if len(picks) != 4 or len(set(ids_of(picks))) != 4:
                    faults.append(picks)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for work in (change, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []


# ---- what is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"caps": [{"field": "brnd", "most": 2}]},
            "caps: 'brnd' is no field of the items. Did you mean 'brand'?",
        ),
        ({"caps": [{"field": "title", "most": 2}]}, "caps: The field 'title' is not of kind category"),
        (
            {"available": [{"field": "brand", "above": 1}]},
            "available: The field 'brand' is not of kind number",
        ),
        ({"available": [{"field": "brand", "any_of": ["aa"]}]}, "available: no item has 'aa' in 'brand'"),
        ({"categories": [{"field": "tags", "none_of": ["q"]}]}, "categories: no item has 'q' in 'tags'"),
        ({"unavailable": ["i77"]}, "unavailable: 'i77' is no item"),
        ({"pins": [{"item": "j1", "place": 1}]}, "pins: 'j1' is no item"),
        ({"seen": [{"event": "bye"}]}, "seen: 'bye' is no event type. Did you mean 'buy'?"),
        ({"cap": []}, "'cap' is not a setting. Did you mean 'caps'?"),
        ({"caps": [{"field": "brand", "msot": 2}]}, "Did you mean 'most'?"),
        ({"caps": [{"field": "brand", "most": 0}]}, "greater than or equal to 1"),
        ({"available": [{"field": "brand"}]}, "either any_of or above"),
        ({"categories": [{"field": "brand"}]}, "wanted any_of, none_of or both"),
        ({"explore": {"share": 1.5}}, "less than or equal to 1"),
        ({"pins": [{"item": "i1", "place": 1, "since": "2023-01-01T00:00:00"}]}, "timezone"),
    ],
)
def test_rules_that_cannot_be_are_refused_at_the_start(tmp_path, tree, words):
    import yaml

    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(SettingsError) as raised:
        Rules.load(tmp_path / "rules.yaml", make_catalogue(["a", "b"], [["x"], None]))
    assert words in str(raised.value)
    assert "rules.yaml" in str(raised.value)


def test_all_faults_are_told_at_once_and_days_want_times(tmp_path):
    ordered = Schema(SCHEMA.fields, SCHEMA.events, (1.0, 1.0), ("buy",), has_time=False)
    catalogue = make_catalogue(["a"], schema=ordered)
    with pytest.raises(SettingsError, match=r"'i9' is no item; seen: days mean nothing"):
        rules_of(catalogue, unavailable=["i9"], seen=[{"days": 3}])


def test_numbers_in_yaml_are_keys_and_labels(tmp_path):
    (tmp_path / "rules.yaml").write_text(
        "caps:\n  - {field: brand, most: 1}\ncategories:\n  - {field: brand, any_of: [7]}\n"
    )
    rules = Rules.load(tmp_path / "rules.yaml", make_catalogue(["7", "7", "8"]))
    assert ids_of(chosen(rules, items=3)) == [2]


def test_every_rule_is_read_somewhere():
    import re
    from pathlib import Path

    from palate.retrieve import rule_settings

    folder = Path(rule_settings.__file__).parent
    sources = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "rule_settings.py")
    models = [
        of
        for of in vars(rule_settings).values()
        if isinstance(of, type) and issubclass(of, rule_settings.Rule)
    ]
    names = {name for model in models for name in model.model_fields}
    assert {"any_of", "half_life_days", "missing"} <= names
    assert [name for name in names if not re.search(rf"\.{name}\b", sources)] == []
