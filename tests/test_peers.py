"""The peers' judge is Palate's own; the split they read is the one Palate trains on."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.common import Split, Trial, best_of, metrics, peak_mb
from bench.peers.environments import RECIPES, VERSIONS
from bench.peers.run import DRIVERS, as_markdown, row_of, seconds_to
from bench.peers.split import write_split, write_table
from palate.data.source import read_dataset
from palate.data.store import prepare
from palate.evaluate.protocol import evaluate
from palate.schema import FIRST_ID, Part
from palate.settings import EvaluateSettings, Settings
from tests.worlds import TableRanker

PARTS = {"validation": Part.VALIDATION, "test": Part.TEST}


def small_data(folder, people=40, items=30, seed=0):
    """A dataset.yaml of random histories with many equal times, which the order of the file decides."""
    generator = np.random.default_rng(seed)
    rows = [
        (f"u{person:02d}", f"i{item:02d}", place // 2)
        for person in range(people)
        for place, item in enumerate(generator.permutation(items)[: generator.integers(4, 12)])
    ]
    table = pl.DataFrame(rows, schema=["person", "item", "time"], orient="row")
    table.write_csv(folder / "events.csv")
    path = folder / "dataset.yaml"
    path.write_text(
        "name: small\ninteractions:\n  table: events.csv\n  user: person\n  item: item\n"
        "  time: time\n  time_unit: order\n"
    )
    return path, table


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    path, table = small_data(folder)
    write_split(path, folder / "split.npz")
    return path, table, Split.read(folder / "split.npz")


def scores_of(split, levels, seed):
    """Scores [U, I] of few levels, so that many are equal."""
    return np.random.default_rng(seed).integers(0, levels, (split.people, split.items)).astype(np.float32)


def test_the_last_event_in_the_order_of_the_file_is_the_test_and_the_one_before_it_validation(world):
    _, table, split = world
    histories = table.group_by("person", maintain_order=True).agg("item")["item"].to_list()
    item_of = {}
    for person, history in enumerate(histories):
        mine = [*split.item[split.offsets[person] : split.offsets[person + 1]]]
        for number, key in zip([*mine, split.validation[person], split.test[person]], history, strict=True):
            assert item_of.setdefault(number, key) == key
    assert sorted(item_of) == list(range(split.items))


def test_validation_is_known_when_test_is_asked_and_comes_last(world):
    _, _, split = world
    person, item, place = split.events("test")
    assert len(item) == len(split.item) + split.people
    last = np.searchsorted(person, np.arange(split.people), side="right") - 1
    assert np.array_equal(item[last], split.validation)
    assert np.array_equal(place[last], np.diff(split.offsets))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("levels", [1, 3, 10_000])
def test_the_peers_judge_agrees_with_palates_own(world, part, levels):
    path, _, split = world
    dataset = read_dataset(path)
    prepared = prepare(dataset, Settings.build(dataset.settings))
    questions = prepared.questions(PARTS[part], filter_seen=True, cold_targets=True)
    assert len(questions) == split.people
    scores = scores_of(split, levels, seed=levels)
    # The split numbers the items anew, in the order of Palate's ids.
    table = np.zeros((prepared.people.size, prepared.items.size), np.float32)
    table[np.ix_(questions.people, np.arange(split.items) + FIRST_ID)] = scores
    settings = EvaluateSettings(bootstrap=20)
    ours = evaluate(TableRanker(table), prepared, questions, settings=settings).means
    theirs = metrics(split.ranks_of(lambda rows: scores[rows], part, chunk=7))
    assert theirs == pytest.approx({"ndcg@10": ours["ndcg@10"], "hr@10": ours["hit_rate@10"]})


@given(levels=st.integers(1, 40), seed=st.integers(0, 1000), part=st.sampled_from(sorted(PARTS)))
def test_ranks_are_those_of_counting_one_item_at_a_time(world, levels, seed, part):
    _, _, split = world
    scores = scores_of(split, levels, seed)
    scores[:, 0] = -np.inf
    ranks = split.ranks_of(lambda rows: scores[rows], part, chunk=9)
    person, item, _ = split.events(part)
    for u in range(split.people):
        open_items = sorted(set(range(split.items)) - set(item[person == u]))
        level = scores[u, getattr(split, part)[u]]
        others = [scores[u, i] for i in open_items if i != getattr(split, part)[u]]
        assert ranks[u] == 1 + sum(o > level for o in others) + sum(o == level for o in others) / 2


def test_lists_and_scores_without_ties_give_the_same_figures(world):
    _, _, split = world
    generator = np.random.default_rng(4)
    scores = generator.permuted(np.tile(np.arange(split.items), (split.people, 1)), axis=1).astype(np.float32)
    person, item, _ = split.events("test")
    shown = scores.copy()
    shown[person, item] = -np.inf
    lists = np.argsort(-shown, axis=1)[:, :10]
    by_scores = split.ranks_of(lambda rows: scores[rows], "test")
    assert metrics(split.ranks_in(lists, "test")) == pytest.approx(metrics(by_scores))
    assert metrics(split.ranks_in(np.full_like(lists, -1), "test")) == {"ndcg@10": 0.0, "hr@10": 0.0}


def test_scores_that_are_not_numbers_are_refused_rather_than_ranked_first(world):
    _, _, split = world
    with pytest.raises(ValueError, match="not numbers"):
        split.ranks_of(lambda rows: np.full((len(rows), split.items), np.nan), "test")


def test_some_people_only_are_a_split_of_their_own_that_palate_splits_the_same_way(world, tmp_path):
    path, _, _ = world
    write_split(path, tmp_path / "some.npz", people=12)
    some = Split.read(tmp_path / "some.npz")
    assert some.people == 12
    assert set(some.item) | set(some.validation) | set(some.test) == set(range(some.items))
    write_split(write_table(some, tmp_path), tmp_path / "again.npz")
    again = Split.read(tmp_path / "again.npz")
    for name in ("offsets", "item", "validation", "test", "items"):
        assert np.array_equal(getattr(some, name), getattr(again, name)), name


def test_the_trial_that_is_best_on_validation_is_the_one_asked_of_test(world, capsys):
    _, _, split = world
    asked = []

    def trial(number, rank):
        def fit():
            def ranks(part):
                asked.append((number, part))
                return np.full(split.people, rank)

            return ranks

        return Trial({"number": number}, fit, parameters=number)

    best_of([trial(0, 5.0), trial(1, 2.0), trial(2, 9.0)])
    assert [who for who, part in asked if part == "test"] == [1]
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    row = row_of("x", events, [0.6, 0.7])
    assert row["chosen"] == {"number": 1}
    assert row["epochs"] == 1
    assert row["to_best"] == row["epoch_seconds"]
    assert row["reached"] == {"0.6": row["to_best"], "0.7": None}


def test_time_to_a_figure_counts_training_and_no_validation():
    epochs = [
        {"train_seconds": 3.0, "validation_seconds": 50.0, "ndcg@10": figure} for figure in (0.1, 0.2, 0.15)
    ]
    assert seconds_to(epochs, 0.1) == 3.0
    assert seconds_to(epochs, 0.16) == 6.0
    assert seconds_to(epochs, 0.21) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's mark is Linux's")
def test_the_memory_of_a_process_does_not_begin_with_that_of_its_parent():
    ballast = np.ones(300 * 2**20, np.uint8)
    code = "from bench.peers.common import peak_mb; print(peak_mb())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ballast.nbytes / 2**20 < peak_mb()
    assert float(child.stdout) < 300


def test_every_line_of_the_table_has_a_cell_for_every_head():
    held = {"peak_mb": 100.0, "score_seconds": 0.5, "parameters": 1234}
    estimate = {"event": "estimate", "train_seconds": 900.0, "steps": 20, "total_steps": 480, **held}
    done = {
        "event": "done",
        "best_epoch": 1,
        "validation_ndcg": 0.2,
        "test_ndcg": 0.18,
        "test_hr": 0.3,
        **held,
    }
    epochs = [{"event": "epoch", "epoch": n, "train_seconds": 7.0, "ndcg@10": 0.1 * n} for n in (1, 2)]
    rows = [row_of("slow", [estimate], [0.15]), row_of("whole", [*epochs, done], [0.15])]
    heads, rule, *lines = (line.strip("|").split("|") for line in as_markdown(rows, [0.15]).splitlines())
    assert {len(heads), len(rule), *map(len, lines)} == {10}
    cells = [dict(zip((head.strip() for head in heads), map(str.strip, line), strict=True)) for line in lines]
    assert cells[0]["s per epoch"] == "900 (estimated from the first 20 steps)"
    assert (cells[0]["test"], cells[0]["parameters"]) == ("–", "1,234")
    assert (cells[1]["s to NDCG@10 0.15"], cells[1]["s to own best"], cells[1]["test"]) == (
        "14",
        "14",
        "0.1800",
    )


def test_every_peer_has_an_environment_of_a_version_that_is_named():
    assert {environment for environment, _ in DRIVERS.values()} == set(RECIPES) == set(VERSIONS)
    for name, version in VERSIONS.items():
        pinned = [package for packages in RECIPES[name] for package in packages if package.startswith(name)]
        assert [package.split("==")[1] for package in pinned] == [version.split()[1]]
