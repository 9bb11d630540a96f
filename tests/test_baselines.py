from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from palate.data.store import prepare
from palate.errors import DataError
from palate.evaluate import baselines, evidence, linear
from palate.evaluate.baselines import candidates, fit_baselines
from palate.evaluate.evidence import Evidence
from palate.evaluate.linear import Als, Ease
from palate.evaluate.neighbours import ContentKnn, ItemKnn
from palate.evaluate.popular import BoughtBefore, Popularity, RecentPopularity
from palate.evaluate.protocol import Evaluation, Skipped, mean_metric
from palate.evaluate.vectors import content_matrix, history_matrix, item_vectors
from palate.schema import Histories, Part, Questions
from palate.settings import EvaluateSettings, Settings
from tests.contracts import RANKER_CONTRACT
from tests.worlds import block_of, block_world, prepared_block_world

RANKERS = {
    "popularity": Popularity,
    "recent_popularity": RecentPopularity,
    "bought_before": BoughtBefore,
    "item_knn": lambda: ItemKnn(shrinkage=1.0),
    "ease": lambda: Ease(10.0),
    "als": lambda: Als(factors=6),
    "content_knn": ContentKnn,
}
PERSONAL = ("item_knn", "ease", "als", "content_knn")


@pytest.fixture(scope="module")
def prepared():
    return prepared_block_world()


@pytest.fixture(scope="module")
def fitted(prepared):
    return {name: make().fit(prepared) for name, make in RANKERS.items()}


@pytest.fixture(scope="module")
def questions(prepared):
    return prepared.questions(Part.TEST, filter_seen=True, cold_targets=True)


@pytest.mark.parametrize("holds", RANKER_CONTRACT, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", RANKERS)
def test_every_baseline_keeps_the_contract_of_rankers(holds, name, fitted, prepared, questions):
    holds(fitted[name], questions, prepared.items.size)


@pytest.mark.parametrize("name", PERSONAL)
def test_personal_baselines_find_the_block(name, fitted, prepared, questions):
    """Who knows the blocks has every target in the first three: that many items of a block are unseen."""
    settings = EvaluateSettings(bootstrap=2)
    assert mean_metric(fitted[name], prepared, questions, "hit_rate@3", settings) > 0.95


def test_popularity_stays_near_chance_where_all_items_are_alike(fitted, prepared, questions):
    value = mean_metric(fitted["popularity"], prepared, questions, "hit_rate@3", EvaluateSettings())
    assert value < 0.3  # chance is 3 of 33


@pytest.mark.parametrize("name", ["item_knn", "ease", "als"])
def test_an_empty_history_gets_popularity(name, fitted):
    nobody = Questions.without_answer(Histories.of([[]]))
    order = np.argsort(-fitted[name].score(nobody)[0], kind="stable")
    expected = np.argsort(-fitted["popularity"].score(nobody)[0], kind="stable")
    np.testing.assert_array_equal(order, expected)


def test_popularity_counts_training_events_only(prepared, fitted):
    counts = np.bincount(prepared.training().item, minlength=prepared.items.size)
    scores = fitted["popularity"].score(Questions.without_answer(Histories.of([[]])))[0]
    np.testing.assert_allclose(scores, counts / counts.max(), rtol=1e-6)


def test_popularity_counts_the_types_that_are_predicted_and_personal_rankers_read_all():
    world = block_world(length=6)
    seen = pl.col("item") == "i000"
    interactions = world.interactions.with_columns(
        event=pl.when(seen).then(pl.lit("view")).otherwise(pl.lit("purchase"))
    )
    settings = Settings.build({"train": {"target_events": ["purchase"]}})
    prepared = prepare(replace(world, interactions=interactions), settings)
    viewed = prepared.items.ids(["i000"])[0]
    assert prepared.warm[viewed]
    nobody = Questions.without_answer(Histories.of([[]]))
    for ranker in (Popularity(), RecentPopularity()):
        scores = ranker.fit(prepared).score(nobody)[0]
        assert scores[viewed] == 0
        assert (np.delete(scores, [0, 1, viewed]) > 0).all()
    assert ItemKnn().fit(prepared).similarity[[viewed]].nnz > 0
    assert viewed in Ease(10.0).fit(prepared).warm


def test_recent_popularity_halves_an_event_with_every_half_life(prepared):
    histories = prepared.training()
    span = histories.time.max() - histories.time.min()
    expected = np.zeros(prepared.items.size)
    for item, time in zip(histories.item, histories.time, strict=True):
        expected[item] += 0.5 ** ((histories.time.max() - time) / span / 0.1)
    scores = RecentPopularity(0.1).fit(prepared).score(Questions.without_answer(Histories.of([[]])))[0]
    np.testing.assert_allclose(scores, expected / expected.max(), rtol=1e-5)


def test_without_a_clock_recent_means_late_in_the_own_history():
    prepared = prepared_block_world(has_time=False)
    histories = prepared.training()
    expected = np.zeros(prepared.items.size)
    for start, stop in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        for place in range(start, stop):
            expected[histories.item[place]] += 0.5 ** ((stop - place - 1) / (stop - start) / 0.2)
    scores = RecentPopularity(0.2).fit(prepared).score(Questions.without_answer(Histories.of([[]])))[0]
    np.testing.assert_allclose(scores, expected / expected.max(), rtol=1e-5)


def test_bought_before_ranks_by_frequency_and_recency_and_then_popularity(fitted):
    history = Questions.without_answer(Histories.of([[5, 6, 5, 7, 7, 7, 8]]))
    often = BoughtBefore(1000.0)
    often.popularity = fitted["bought_before"].popularity
    lately = BoughtBefore(0.5)
    lately.popularity = fitted["bought_before"].popularity
    assert np.argsort(-often.score(history)[0], kind="stable")[:4].tolist() == [7, 5, 8, 6]
    assert np.argsort(-lately.score(history)[0], kind="stable")[:4].tolist() == [8, 7, 5, 6]
    others = np.setdiff1d(np.arange(len(often.popularity)), [5, 6, 7, 8])
    np.testing.assert_array_equal(often.score(history)[0, others], often.popularity[others])
    assert often.popularity.max() <= 0.5


def test_item_knn_is_the_sum_of_cosines_written_with_loops(prepared, questions):
    ranker = ItemKnn(latest=3, shrinkage=2.0, neighbours=1000).fit(prepared)
    training = prepared.training()
    people = [set(training.rows()[training.item == item].tolist()) for item in range(prepared.items.size)]
    scores = ranker.score(questions)
    history = questions.histories
    for q in (0, 5, 11):
        latest = set(history.item[history.offsets[q] : history.offsets[q + 1]][-3:].tolist())
        for item in range(2, prepared.items.size):
            expected = sum(
                len(people[item] & people[other]) / (np.sqrt(len(people[item]) * len(people[other])) + 2.0)
                for other in latest
                if other != item
            )
            assert scores[q, item] == pytest.approx(expected, abs=1e-6)


def test_item_knn_keeps_only_the_nearest(prepared):
    ranker = ItemKnn(neighbours=3, shrinkage=0.0).fit(prepared)
    whole = ItemKnn(neighbours=1000, shrinkage=0.0).fit(prepared).similarity.toarray()
    kept = ranker.similarity.toarray()
    for row, full in zip(kept, whole, strict=True):
        threshold = np.sort(full)[-3]
        np.testing.assert_array_equal(row, np.where(full >= threshold, full, 0))


def test_ease_equals_a_ridge_regression_of_each_item_on_the_others(prepared):
    X = history_matrix(prepared.training(), prepared.items.size).toarray().astype(float)
    ranker = Ease(7.0).fit(prepared)
    X = X[:, ranker.warm]
    for item in (0, 3, 17):
        others = np.delete(np.arange(X.shape[1]), item)
        A = X[:, others]
        ridge = np.linalg.solve(A.T @ A + 7.0 * np.eye(len(others)), A.T @ X[:, item])
        np.testing.assert_allclose(ranker.weights[others, item], ridge, atol=1e-5)
        assert ranker.weights[item, item] == 0


def test_als_solves_the_person_from_the_history_anew(prepared, questions):
    ranker = Als(factors=6, confidence=3.0, regularisation=0.5).fit(prepared)
    Y = ranker.model.item_factors.astype(float)
    history = questions.histories
    scores = ranker.score(questions)
    for q in (0, 9):
        liked = np.unique(history.item[history.offsets[q] : history.offsets[q + 1]])
        weights = np.ones(len(Y))
        weights[liked] = 3.0
        wanted = np.zeros(len(Y))
        wanted[liked] = 1
        person = np.linalg.solve((Y.T * weights) @ Y + 0.5 * np.eye(6), (Y.T * weights) @ wanted)
        np.testing.assert_allclose(scores[q], Y @ person, atol=1e-4)


def test_content_knn_alone_can_place_an_item_nobody_has_met(prepared):
    ranker = ContentKnn().fit(prepared)
    blocks = block_of(prepared)
    own = np.flatnonzero(blocks == 1)
    scores = ranker.score(Questions.without_answer(Histories.of([own[:3].tolist()])))[0]
    assert scores[own[3:]].min() > scores[(blocks != 1) & (blocks >= 0)].max()


def test_sparse_and_dense_products_agree(prepared, questions, monkeypatch):
    dense = ContentKnn().fit(prepared).score(questions)
    monkeypatch.setattr("palate.evaluate.neighbours.LARGEST_DENSE", 1)
    sparse = ContentKnn().fit(prepared).score(questions)
    np.testing.assert_allclose(sparse, dense, atol=1e-5)
    X = history_matrix(questions.histories, prepared.items.size)
    table = np.random.default_rng(0).random((prepared.items.size, 9)).astype(np.float32)
    full = evidence.product(X, table)
    few = history_matrix(Histories.of([[3]] + [[]] * 60), prepared.items.size)
    np.testing.assert_allclose(full, X.toarray() @ table, rtol=1e-5)
    np.testing.assert_allclose(evidence.product(few, table), few.toarray() @ table, rtol=1e-5)


def test_content_is_read_in_any_script():
    prepared = prepared_block_world()
    titles = pl.Series("title", [None, None, "红茶 热饮", "绿茶", "Coffee"] + [""] * 37)
    world = prepared.__class__(
        **{
            **{name: getattr(prepared, name) for name in prepared.__dataclass_fields__},
            "catalogue": prepared.catalogue.with_columns(titles),
        }
    )
    likeness = content_matrix(world)
    likeness = (likeness @ likeness.T).toarray()
    assert likeness[2, 3] > 0
    assert likeness[2, 4] == 0
    assert likeness[2, 2] == pytest.approx(1)


def test_without_content_items_are_described_by_their_people():
    prepared = prepared_block_world(content=False)
    assert content_matrix(prepared) is None
    assert item_vectors(prepared).shape == (prepared.items.size, prepared.people.size)


def test_history_matrix_reads_the_latest_events_once_each():
    histories = Histories.of([[2, 3, 3, 4], [], [5]])
    assert history_matrix(histories, 6).toarray().tolist() == [
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert history_matrix(histories, 6, latest=2).toarray()[0].tolist() == [0, 0, 0, 1, 1, 0]
    assert histories.item.tolist() == [2, 3, 3, 4, 5]


SMALL = EvaluateSettings(bootstrap=20, cutoffs=(3,), references=())


def test_all_baselines_are_judged_in_the_order_asked(prepared, monkeypatch):
    monkeypatch.setattr(baselines, "candidates", lambda name, items, seed: [RANKERS[name](), RANKERS[name]()])
    asked_for = ("popularity", "recent_popularity", "item_knn", "ease", "als", "content_knn", "bought_before")
    heard = []
    settings = SMALL.model_copy(update={"baselines": asked_for})
    rows = fit_baselines(prepared, settings, seed=0, progress=heard.append)
    assert [row.name for row in rows] == list(asked_for) == heard
    assert all(isinstance(row, Evaluation) and row.fit_seconds > 0 for row in rows)
    means = {row.name: row.means["ndcg@3"] for row in rows}
    assert min(means[name] for name in PERSONAL) > 2 * means["popularity"]


def test_the_candidate_that_is_best_on_validation_is_judged(prepared, monkeypatch):
    tried = [BoughtBefore(), ItemKnn(latest=None)]
    monkeypatch.setattr(baselines, "candidates", lambda name, items, seed: tried)
    rows = fit_baselines(prepared, SMALL.model_copy(update={"baselines": ("item_knn",)}))
    assert [row.name for row in rows] == ["item_knn"]
    assert rows[0].description == tried[1].description


def test_what_cannot_run_is_skipped_with_its_reason(monkeypatch):
    prepared = prepared_block_world(content=False)
    monkeypatch.setattr(linear, "LARGEST_DENSE", 10)
    rows = fit_baselines(
        prepared, SMALL.model_copy(update={"baselines": ("content_knn", "ease", "popularity")})
    )
    assert [type(row) for row in rows] == [Skipped, Skipped, Evaluation]
    assert "no content" in rows[0].reason
    assert "more than 10" in rows[1].reason


def test_too_many_pairs_are_not_counted(prepared, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_PAIRS", 10)
    with pytest.raises(DataError, match="pairs of items"):
        ItemKnn().fit(prepared)


def test_every_baseline_of_the_settings_has_candidates_with_different_descriptions():
    for name in RANKERS:
        tried = candidates(name, 100, 0)
        assert {ranker.name for ranker in tried} == {name}


def test_a_spread_sample_keeps_each_questions_own_history_and_target(questions):
    sample = questions.spread(7)
    assert len(sample) == 7
    for q in range(7):
        at = questions.people.tolist().index(sample.people[q])
        whole, part = questions.select(np.array([at])), sample.select(np.array([q]))
        np.testing.assert_array_equal(whole.histories.item, part.histories.item)
        np.testing.assert_array_equal(whole.target_items, part.target_items)
    assert questions.spread(10_000) is questions


def test_shared_evidence_gives_what_fitting_alone_gives(prepared, questions):
    shared = Evidence(prepared)
    for name, make in RANKERS.items():
        np.testing.assert_array_equal(
            make().learn(shared).score(questions), make().fit(prepared).score(questions), err_msg=name
        )
