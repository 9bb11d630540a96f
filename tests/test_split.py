import datetime
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from palate.data.leak import check_no_leak, check_questions
from palate.data.prepared import Prepared
from palate.data.split import Periods, split, temporal_periods
from palate.data.store import prepare
from palate.errors import DataError, LeakError, SettingsError
from palate.schema import PART_UNUSED, Histories, Part, Schema
from palate.settings import Settings, SplitSettings
from tests.tables import DAY, HOUR, NOON, dataset, views

KINDS = ("leave_one_out", "leave_last_k", "temporal", "cold_items", "cold_users")
LETTERS = "TVE-"  # train, validation, test (exam), unused


def letters(part: np.ndarray) -> str:
    return "".join(LETTERS[code] for code in part)


def parts(prepared: Prepared) -> dict[object, str]:
    """The parts of each person's events, as letters."""
    of = prepared.histories
    return {
        prepared.people.keys([p])[0]: letters(prepared.part[of.offsets[p] : of.offsets[p + 1]])
        for p in range(2, len(of))
    }


def asked(
    prepared: Prepared, part: Part, *, filter_seen: bool = False, cold_targets: bool = True
) -> dict[object, tuple[str, str]]:
    """History and targets of each person asked, as item keys."""
    questions = prepared.questions(part, filter_seen=filter_seen, cold_targets=cold_targets)
    of, ends = questions.histories, questions.target_offsets

    def words(ids: np.ndarray) -> str:
        return "".join(map(str, prepared.items.keys(ids)))

    return {
        prepared.people.keys([person])[0]: (
            words(of.item[of.offsets[q] : of.offsets[q + 1]]),
            words(questions.target_items[ends[q] : ends[q + 1]]),
        )
        for q, person in enumerate(questions.people)
    }


def prepared_with(table, **split_settings) -> Prepared:
    return prepare(table, Settings.build({"split": split_settings}), None)


def mixed(histories: dict[str, str], **further):
    """Capitals are purchases (targets), small letters views of the same item."""
    rows = [
        (user, item.lower(), NOON + n * HOUR, "buy" if item.isupper() else "view", None)
        for user, items in histories.items()
        for n, item in enumerate(items)
    ]
    return dataset(rows, **further)


SIX_PEOPLE = views({"ann": "abcde", "bob": "abc", "cat": "ab", "dan": "a", "eve": "edcba", "fay": "aabba"})


def test_the_last_is_test_and_the_one_before_validation():
    prepared = prepared_with(SIX_PEOPLE)
    assert parts(prepared) == {
        "ann": "TTTVE",
        "bob": "TVE",
        "cat": "TT",
        "dan": "T",
        "eve": "TTTVE",
        "fay": "TTTVE",
    }
    assert asked(prepared, Part.VALIDATION) == {
        "ann": ("abc", "d"),
        "bob": ("a", "b"),
        "eve": ("edc", "b"),
        "fay": ("aab", "b"),
    }
    assert asked(prepared, Part.TEST) == {
        "ann": ("abcd", "e"),
        "bob": ("ab", "c"),
        "eve": ("edcb", "a"),
        "fay": ("aabb", "a"),
    }


def test_what_was_seen_is_not_asked_when_filtered():
    prepared = prepared_with(SIX_PEOPLE)
    assert asked(prepared, Part.TEST, filter_seen=True) == {
        "ann": ("abcd", "e"),
        "bob": ("ab", "c"),
        "eve": ("edcb", "a"),
    }
    assert prepared.report["asked"]["test"] == {
        "people": 3,
        "targets": 3,
        "without_history": 0,
        "all_seen_before": 1,
    }


def test_cold_targets_are_left_out_on_request():
    prepared = prepared_with(views({"ann": "abc", "bob": "bac", "cat": "abaz"}))
    assert asked(prepared, Part.TEST) == {"ann": ("ab", "c"), "bob": ("ba", "c"), "cat": ("aba", "z")}
    assert asked(prepared, Part.TEST, cold_targets=False) == {}
    assert prepared.items.keys(np.flatnonzero(prepared.warm)) == ["a", "b"]
    assert prepared.items.keys(np.flatnonzero(prepared.candidates(cold_targets=True))) == ["a", "b", "c", "z"]
    assert prepared.items.keys(np.flatnonzero(prepared.candidates(cold_targets=False))) == ["a", "b"]


def test_the_last_k_are_test_and_the_k_before_validation():
    prepared = prepared_with(views({"ann": "abcdeff", "bob": "abcd"}), kind="leave_last_k", k=2)
    assert parts(prepared) == {"ann": "TTTVVEE", "bob": "TTTT"}
    assert asked(prepared, Part.VALIDATION) == {"ann": ("abc", "de")}
    assert asked(prepared, Part.TEST) == {"ann": ("abcde", "f")}  # each target once


def test_only_target_events_are_held_out_and_later_questions_see_the_others():
    table = mixed({"ann": "aAbBcCdDe", "bob": "AbcB"})
    prepared = prepare(table, Settings.build({"train": {"target_events": ["Buy"]}}), None)
    assert prepared.schema.target_events == ("buy",)
    assert parts(prepared) == {"ann": "TTTTTVVE-", "bob": "TTTT"}
    assert asked(prepared, Part.VALIDATION) == {"ann": ("aabbc", "c")}
    assert asked(prepared, Part.TEST) == {"ann": ("aabbccd", "d")}
    assert len(prepared.known().item) == 13
    assert len(prepared.training().item) == 9


def test_a_return_is_no_target_unless_named():
    rows = [("ann", item, NOON + n * HOUR, "buy", 1.0) for n, item in enumerate("abcd")]
    table = dataset([*rows, ("ann", "d", NOON + DAY, "buy", -1.0)], negative_value="return")
    assert parts(prepare(table, Settings(), None)) == {"ann": "TTVE-"}
    named = Settings.build({"train": {"target_events": ["buy", "return"]}})
    assert parts(prepare(table, named, None)) == {"ann": "TTTVE"}


def test_an_unknown_target_event_is_refused_with_those_present():
    settings = Settings.build({"train": {"target_events": ["buys"]}})
    with pytest.raises(SettingsError, match=r"'buys'.*buy, view.*Did you mean 'buy'"):
        prepare(mixed({"ann": "ABa"}), settings, None)


def day_by_day(histories: dict[str, str], **further):
    """One view a day, all people side by side; a dot is a day without."""
    rows = [
        (user, item, NOON + day * DAY, "view", None)
        for user, items in histories.items()
        for day, item in enumerate(items)
        if item != "."
    ]
    return dataset(rows, **further)


CALENDAR = day_by_day(
    {"ann": "abcdefghij", "bob": "abcd.....a", "cat": ".....abcde", "dan": "a.........", "eve": "abaaaaaaaa"}
)


def test_periods_are_cut_by_date_and_horizon():
    date = datetime.datetime(2011, 2, 2)  # noon of the day before is day 6
    prepared = prepared_with(CALENDAR, kind="temporal", date=date, horizon_days=2)
    assert parts(prepared) == {
        "ann": "TTTTTVVEE-",
        "bob": "TTTT-",
        "cat": "VVEE-",
        "dan": "T",
        "eve": "TTTTTVVEE-",
    }
    assert asked(prepared, Part.VALIDATION) == {"ann": ("abcde", "fg"), "eve": ("abaaa", "a")}
    assert asked(prepared, Part.TEST) == {
        "ann": ("abcdefg", "hi"),
        "cat": ("ab", "cd"),
        "eve": ("abaaaaa", "a"),
    }
    assert prepared.report["asked"]["validation"] == {
        "people": 1,
        "targets": 2,
        "without_history": 1,
        "all_seen_before": 1,
    }
    assert prepared.report["split"]["test_from"] == "2011-02-02T00:00:00"


def test_without_a_date_periods_hold_a_share_of_the_events():
    time = np.arange(100, dtype=np.int64)
    assert temporal_periods(time[::-1], SplitSettings(kind="temporal", share=0.1)) == Periods(80, 90)


def test_without_a_horizon_test_lasts_to_the_end():
    date = datetime.datetime(2011, 2, 2, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    split_settings = SplitSettings(kind="temporal", share=0.2, date=date)
    periods = temporal_periods(NOON + np.arange(10) * DAY, split_settings)
    assert (periods.validation, periods.test) == (NOON + 5 * DAY, NOON + 6 * DAY + 12 * HOUR)


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"date": datetime.datetime(1990, 1, 1)}, "no event for training"),
        ({"date": datetime.datetime(2030, 1, 1)}, "no event for test"),
        ({"date": datetime.datetime(2011, 2, 2), "horizon_days": 0.1}, "no event for validation"),
    ],
)
def test_an_empty_period_is_refused(further, message):
    with pytest.raises(SettingsError, match=message):
        prepared_with(CALENDAR, kind="temporal", **further)


def test_a_temporal_split_of_an_order_is_refused():
    table = dataset([("ann", "a", n, "view", None) for n in range(9)], has_time=False)
    with pytest.raises(SettingsError, match="no times"):
        prepared_with(table, kind="temporal")


MANY = views({f"p{n:02}": "".join(chr(97 + (n * 3 + k * k) % 20) for k in range(8)) for n in range(30)})


def test_cold_items_are_nowhere_in_training():
    prepared = prepared_with(MANY, kind="cold_items", share=0.2)
    of, rows = prepared.histories, prepared.histories.rows()
    held = {code: set(of.item[prepared.part == code].tolist()) for code in (0, 1, 2)}
    assert (len(held[0]), len(held[1]), len(held[2])) == (12, 4, 4)
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    for part, code in ((Part.VALIDATION, 1), (Part.TEST, 2)):
        questions = prepared.questions(part, filter_seen=True, cold_targets=True)
        assert len(questions) > 5
        for q, person in enumerate(questions.people):
            mine = np.flatnonzero(rows == person)
            last = max(e for e in mine if prepared.part[e] == code)
            assert questions.target_items[q] == of.item[last]
            before = [of.item[e] for e in mine if e < last and prepared.part[e] == 0]
            assert questions.histories.select(np.array([q])).item.tolist() == before


def test_cold_users_are_nowhere_in_training():
    prepared = prepared_with(MANY, kind="cold_users", share=0.1)
    found = parts(prepared)
    assert sorted(found.values()) == ["E" * 8] * 3 + ["T" * 8] * 24 + ["V" * 8] * 3
    questions = prepared.questions(Part.TEST, filter_seen=False, cold_targets=True)
    assert len(questions) == 3
    for q, person in enumerate(questions.people):
        history = prepared.histories.select(np.array([person])).item.tolist()
        assert questions.histories.select(np.array([q])).item.tolist() == history[:-1]
        assert questions.target_items[q] == history[-1]


def test_what_cold_users_do_after_their_last_target_is_unused():
    table = mixed({f"p{n}": "aAb" for n in range(10)})
    settings = Settings.build({"split": {"kind": "cold_users"}, "train": {"target_events": ["buy"]}})
    assert sorted(parts(prepare(table, settings, None)).values()) == ["EE-", *["TTT"] * 8, "VV-"]


def test_the_cold_share_depends_on_the_seed_alone():
    def cold(seed):
        settings = Settings.build({"seed": seed, "split": {"kind": "cold_users"}})
        return parts(prepare(MANY, settings, None))

    assert cold(1) == cold(1)
    assert cold(1) != cold(2)


def test_too_few_for_a_cold_split_is_refused():
    with pytest.raises(DataError, match="There are 2 people"):
        prepared_with(views({"ann": "abc", "bob": "abc"}), kind="cold_users")


def test_where_nobody_has_enough_targets_all_is_training():
    prepared = prepared_with(mixed({"ann": "Ab", "bob": "Ba"}))
    assert prepared.report["parts"] == {"train": 4, "validation": 0, "test": 0, "unused": 0}
    assert len(prepared.questions(Part.TEST, filter_seen=True, cold_targets=True)) == 0


def test_nothing_to_train_on_is_refused():
    counts = {"data": {"min_user_events": 9}, "split": {"kind": "temporal", "share": 0.2}}
    with pytest.raises(DataError, match="no event for training"):
        prepare(CALENDAR, Settings.build(counts), None)


HISTORIES = st.lists(
    st.lists(st.tuples(st.integers(2, 9), st.integers(0, 1)), max_size=9), min_size=1, max_size=8
)


@given(HISTORIES, st.integers(1, 3))
def test_leaving_the_last_k_is_what_counting_from_the_end_gives(histories, k):
    of = Histories.of([[item for item, _ in history] for history in histories])
    events = np.array([event for history in histories for _, event in history], np.uint8)
    schema = Schema(events=("buy", "view"), event_weights=(1.0, 1.0), target_events=("buy",))
    found = split(replace(of, event=events), schema, SplitSettings(kind="leave_last_k", k=k))
    expected = []
    for history in histories:
        places = [n for n, (_, event) in enumerate(history) if event == 0]
        code = [0] * len(history)
        if len(places) >= 2 * k + 1:
            for n in range(len(history)):
                if n >= places[-2 * k]:
                    code[n] = 1
                if n >= places[-k]:
                    code[n] = 2
                if n > places[-1]:
                    code[n] = PART_UNUSED
        expected += code
    assert found.tolist() == expected


TABLES = st.lists(
    st.tuples(
        st.integers(1, 5), st.integers(1, 6), st.integers(0, 6), st.sampled_from(["buy", "view", "return"])
    ),
    min_size=1,
    max_size=60,
)


@given(TABLES, st.sampled_from(KINDS), st.booleans(), st.booleans())
@hypothesis_settings(deadline=None)
def test_every_split_parts_all_events_and_no_question_knows_its_answer(rows, kind, filter_seen, cold_targets):
    table = dataset([(user, item, NOON + time * DAY, event, None) for user, item, time, event in rows])
    settings = Settings.build({"split": {"kind": kind, "k": 2, "share": 0.2}})
    try:
        prepared = prepare(table, settings, None)  # which looks for leaks as well
    except LeakError:
        raise
    except (DataError, SettingsError):
        return
    assert sum(prepared.report["parts"].values()) == len(prepared.histories.item)
    assert len(prepared.training().item) == prepared.report["parts"]["train"]
    for part in (Part.VALIDATION, Part.TEST):
        questions = prepared.questions(part, filter_seen=filter_seen, cold_targets=cold_targets)
        assert len(set(questions.people.tolist())) == len(questions)
        assert (questions.histories.lengths > 0).all()
        assert (np.diff(questions.target_offsets) > 0).all()
        for q in range(len(questions)):
            targets = questions.target_items[slice(*questions.target_offsets[q : q + 2])].tolist()
            history = questions.histories.select(np.array([q])).item.tolist()
            assert len(set(targets)) == len(targets)
            if filter_seen:
                assert not set(targets) & set(history)
            if not cold_targets:
                assert prepared.warm[targets].all()


def with_part(prepared: Prepared, person: str, text: str) -> Prepared:
    """The same data with the parts of one person's events replaced."""
    part = prepared.part.copy()
    row = prepared.people.ids([person])[0]
    start, stop = prepared.histories.offsets[row : row + 2]
    part[start:stop] = [LETTERS.index(letter) for letter in text]
    return replace(prepared, part=part)


@pytest.mark.parametrize(
    "text", ["TTTTE", "TTVVE", "TTTVT", "TTTEV", "TETVE", "VTTVE", "TTTEE", "TTTV-", "-TTVE"]
)
def test_a_planted_leak_is_found_in_leave_one_out(text):
    prepared = prepared_with(SIX_PEOPLE)
    check_no_leak(with_part(prepared, "ann", "TTTVE"))
    with pytest.raises(LeakError, match="user ann"):
        check_no_leak(with_part(prepared, "ann", text))


@pytest.mark.parametrize(
    "text", ["TTTTTTVEE-", "TTTTVVVEE-", "TTTTTVVEET", "TTTTTVEEE-", "TTTTTVVVE-", "TTTTT-VEE-"]
)
def test_a_planted_leak_is_found_in_a_temporal_split(text):
    date = datetime.datetime(2011, 2, 2)
    prepared = prepared_with(CALENDAR, kind="temporal", date=date, horizon_days=2)
    with pytest.raises(LeakError, match="at or after the start of"):
        check_no_leak(with_part(prepared, "ann", text))


@pytest.mark.parametrize(("kind", "what"), [("cold_items", "items"), ("cold_users", "people")])
@pytest.mark.parametrize(("was", "becomes"), [(2, 0), (1, 0), (2, 1), (0, 2)])
def test_a_planted_leak_is_found_in_a_cold_split(kind, what, was, becomes):
    prepared = prepared_with(MANY, kind=kind)
    part = prepared.part.copy()
    part[np.flatnonzero(part == was)[0]] = becomes
    with pytest.raises(LeakError, match=f"1 {what} are in"):
        check_no_leak(replace(prepared, part=part))


def test_a_part_that_is_none_and_a_missing_part_are_found():
    prepared = prepared_with(SIX_PEOPLE)
    part = prepared.part.copy()
    part[0] = 7
    with pytest.raises(LeakError, match="unknown part"):
        check_no_leak(replace(prepared, part=part))
    with pytest.raises(LeakError, match="20 parts for 21 events"):
        check_no_leak(replace(prepared, part=prepared.part[1:]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_that_holds_its_answer_is_found(kind):
    prepared = prepared_with(MANY, kind=kind, k=2)
    questions = prepared.questions(Part.TEST, filter_seen=False, cold_targets=True)
    check_questions(prepared, Part.TEST, questions)
    answers = replace(questions.histories, item=questions.histories.item.copy())
    answers.item[answers.offsets[1] - 1] = questions.target_items[0]
    with pytest.raises(LeakError, match="test questions"):
        check_questions(prepared, Part.TEST, replace(questions, histories=answers))
    longer = prepared.histories.select(questions.people)  # everything, the answers and later too
    with pytest.raises(LeakError, match="test questions"):
        check_questions(prepared, Part.TEST, replace(questions, histories=longer))


def test_a_horizon_without_a_date_asks_for_the_latest_days():
    time = np.arange(10) * 86_400_000_000  # one event on each of ten days
    periods = temporal_periods(time, SplitSettings(kind="temporal", horizon_days=3))
    where = np.searchsorted([periods.validation, periods.test, periods.end], time, side="right")
    assert where.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
