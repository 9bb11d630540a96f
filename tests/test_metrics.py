import itertools

import ir_measures
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from palate.errors import SettingsError
from palate.evaluate import metrics
from palate.evaluate.metrics import Metric

KS = (1, 3, 5, 10, 20)


def random_questions(seed: int, questions: int = 40, catalogue: int = 50):
    """Scores without ties and target sets, and the ranks that follow."""
    generator = np.random.default_rng(seed)
    scores = generator.permuted(np.tile(np.arange(catalogue, dtype=float), (questions, 1)), axis=1)
    targets = [
        generator.choice(catalogue, generator.integers(1, 15), replace=False) for _ in range(questions)
    ]
    places = (-scores).argsort(axis=1).argsort(axis=1) + 1.0
    ranks = np.concatenate([places[q, chosen] for q, chosen in enumerate(targets)])
    offsets = np.concatenate([[0], np.cumsum([len(chosen) for chosen in targets])])
    return scores, targets, ranks, offsets


@pytest.mark.parametrize("k", KS)
def test_metrics_equal_those_of_ir_measures(k):
    scores, targets, ranks, offsets = random_questions(seed=k)
    qrels = {str(q): {str(item): 1 for item in chosen} for q, chosen in enumerate(targets)}
    run = {str(q): {str(item): float(s) for item, s in enumerate(row)} for q, row in enumerate(scores)}
    pairs = {
        ir_measures.nDCG @ k: metrics.ndcg,
        ir_measures.AP @ k: metrics.average_precision,
        ir_measures.P @ k: metrics.precision,
        ir_measures.R @ k: metrics.recall,
        ir_measures.RR @ k: metrics.mrr,
        ir_measures.Success @ k: metrics.hit_rate,
    }
    ours = {measure: rule(ranks, offsets, k) for measure, rule in pairs.items()}
    for value in ir_measures.iter_calc(list(pairs), qrels, run):
        assert value.value == pytest.approx(ours[value.measure][int(value.query_id)], abs=1e-9)


@pytest.mark.parametrize("k", KS)
def test_ndcg_equals_that_of_scikit_learn(k):
    scores, targets, ranks, offsets = random_questions(seed=100 + k)
    relevance = np.zeros_like(scores)
    for q, chosen in enumerate(targets):
        relevance[q, chosen] = 1
    assert metrics.ndcg(ranks, offsets, k).mean() == pytest.approx(
        ndcg_score(relevance, scores, k=k), abs=1e-9
    )


def slow_obvious(ranks, k):
    """One question's metrics, written with loops."""
    hits = sorted(rank for rank in ranks if rank <= k)
    dcg = sum(1 / np.log2(1 + rank) for rank in hits)
    ideal = sum(1 / np.log2(1 + place) for place in range(1, min(k, len(ranks)) + 1))
    precision, recall = len(hits) / k, len(hits) / len(ranks)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "hit_rate": 1.0 if hits else 0.0,
        "ndcg": dcg / ideal,
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": sum((place + 1) / rank for place, rank in enumerate(hits)) / len(ranks),
    }


ragged_ranks = st.lists(
    st.lists(st.integers(1, 60), min_size=1, max_size=8, unique=True), min_size=1, max_size=6
)


@given(ragged_ranks, st.integers(1, 25))
def test_fast_metrics_equal_slow_loops_and_lie_between_0_and_1(questions, k):
    offsets = np.concatenate([[0], np.cumsum([len(q) for q in questions])])
    values = metrics.per_question(np.concatenate(questions).astype(float), offsets, [k])
    for q, ranks in enumerate(questions):
        for name, expected in slow_obvious(ranks, k).items():
            assert values[f"{name}@{k}"][q] == pytest.approx(expected, abs=1e-12)
        assert values["accuracy"][q] == (ranks[0] == 1)
    assert all(((v >= 0) & (v <= 1 + 1e-12)).all() for v in values.values())


@given(st.lists(st.integers(2, 60), min_size=1, max_size=8, unique=True), st.integers(1, 25), st.data())
def test_a_better_rank_never_lowers_a_metric(ranks, k, data):
    which = data.draw(st.integers(0, len(ranks) - 1))
    free = [rank for rank in range(1, ranks[which]) if rank not in ranks]
    if not free:
        return
    better = list(ranks)
    better[which] = data.draw(st.sampled_from(free))
    offsets = np.array([0, len(ranks)])
    before = metrics.per_question(np.array(ranks, float), offsets, [k])
    after = metrics.per_question(np.array(better, float), offsets, [k])
    for name in before:
        assert after[name][0] >= before[name][0] - 1e-12, name


def test_the_order_of_a_questions_targets_changes_only_accuracy():
    _, _, ranks, offsets = random_questions(seed=7)
    turned = np.concatenate([ranks[a:b][::-1] for a, b in itertools.pairwise(offsets)])
    before = metrics.per_question(ranks, offsets, KS)
    after = metrics.per_question(turned, offsets, KS)
    for name in set(before) - {"accuracy"}:
        np.testing.assert_allclose(after[name], before[name], atol=1e-12)


def test_perfect_ranks_score_1_where_the_targets_fit():
    offsets = np.array([0, 3, 4])
    values = metrics.per_question(np.array([1.0, 2, 3, 1]), offsets, [3])
    assert values["ndcg@3"].tolist() == pytest.approx([1, 1])
    assert values["map@3"].tolist() == pytest.approx([1, 1])
    assert values["mrr@3"].tolist() == [1, 1]
    assert values["accuracy"].tolist() == [1, 1]


def test_examples_of_the_docstrings_are_true():
    ranks, offsets = np.array([1.0, 4.0]), np.array([0, 2])
    assert metrics.ndcg(ranks, offsets, 10)[0] == pytest.approx(0.877, abs=5e-4)
    assert metrics.average_precision(ranks, offsets, 10)[0] == 0.75


@pytest.mark.parametrize("text", ["ndcg@10", "hit_rate@1", "accuracy", "loss", "coverage@20"])
def test_a_metric_reads_back_its_own_name(text):
    assert str(Metric.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ndgc@10", "Did you mean 'ndcg'"),
        ("ndcg", "wanted a cut-off"),
        ("ndcg@0", "wanted a cut-off"),
        ("ndcg@ten", "wanted a cut-off"),
        ("accuracy@1", "takes no cut-off"),
    ],
)
def test_wrong_metric_names_are_refused_with_advice(text, words):
    with pytest.raises(SettingsError, match=words):
        Metric.parse(text)


def test_only_loss_and_concentration_are_better_when_lower():
    assert [
        m for m in ("loss", "gini@5", "ndcg@5", "coverage@5") if not Metric.parse(m).higher_is_better
    ] == [
        "loss",
        "gini@5",
    ]


def test_loss_cannot_be_read_where_there_are_no_probabilities():
    with pytest.raises(SettingsError, match="loss"):
        metrics.of_ranks(Metric("loss"), np.array([1.0]), np.array([0, 1]), None)


CANDIDATES = np.array([False, False, True, True, True, True])


def test_coverage_counts_items_of_the_catalogue_once():
    top = np.array([[2, 3], [3, 0]])
    assert metrics.coverage(top, CANDIDATES, 2) == 0.5
    assert metrics.coverage(top, CANDIDATES, 1) == 0.5
    assert metrics.coverage(top[:1], CANDIDATES, 1) == 0.25


def test_novelty_is_the_information_of_a_recommendation_in_bits():
    popularity = np.array([0, 0, 4, 2, 1, 1])
    assert metrics.novelty(np.array([[2, 3], [4, 0]]), popularity, 2) == pytest.approx((1 + 2 + 3) / 3)


def test_gini_is_0_when_all_items_are_shown_alike_and_highest_when_one_is():
    assert metrics.gini(np.array([[2], [3], [4], [5]]), CANDIDATES, 1) == pytest.approx(0)
    assert metrics.gini(np.array([[2], [2]]), CANDIDATES, 1) == pytest.approx(0.75)


def test_diversity_is_the_mean_distance_of_pairs():
    generator = np.random.default_rng(3)
    vectors = generator.random((30, 6)) * (generator.random((30, 6)) < 0.7)
    vectors[4] = 0
    top = np.array([generator.choice(np.arange(2, 30), 5, replace=False) for _ in range(9)])
    top[0, 3:] = 0
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    per_list = []
    for row in top:
        shown = row[row > 0]
        pairs = [(a, b) for i, a in enumerate(shown) for b in shown[i + 1 :]]
        per_list.append(np.mean([1 - unit[a] @ unit[b] for a, b in pairs]))
    measured = metrics.diversity(top, sp.csr_array(vectors), 5)
    assert measured == pytest.approx(np.mean(per_list), abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_list_metrics_stay_within_their_bounds(seed):
    generator = np.random.default_rng(seed)
    top = np.array([generator.choice(np.arange(2, 22), 6, replace=False) for _ in range(8)])
    candidates = np.arange(22) >= 2
    vectors = sp.csr_array(generator.random((22, 4)))
    values = metrics.of_lists(top, candidates, generator.integers(0, 9, 22), vectors, [1, 3, 6])
    assert all(0 <= v <= 1 + 1e-9 for name, v in values.items() if not name.startswith("novelty"))
    assert values["coverage@1"] <= values["coverage@3"] <= values["coverage@6"]
    assert all(values[f"novelty@{k}"] >= 0 for k in (1, 3, 6))
