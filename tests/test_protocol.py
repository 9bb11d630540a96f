import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import ndcg_score

from palate.errors import DataError, SettingsError
from palate.evaluate import protocol
from palate.evaluate.metrics import ndcg
from palate.evaluate.protocol import evaluate, gives_probabilities, mean_metric, rank
from palate.evaluate.segments import segments_by_length
from palate.evaluate.ties import tied_ranks, top_k
from palate.schema import Histories, Part, Questions
from palate.settings import EvaluateSettings
from tests.worlds import LogitTableRanker, TableRanker, block_of, prepared_block_world

SETTINGS = EvaluateSettings(bootstrap=50)


@pytest.fixture(scope="module")
def prepared():
    return prepared_block_world()


@pytest.fixture(scope="module")
def questions(prepared):
    return prepared.questions(Part.TEST, filter_seen=True, cold_targets=True)


def oracle_table(prepared, questions):
    """A score of 1 for every target and 0 for all else."""
    table = np.zeros((prepared.people.size, prepared.items.size))
    rows = np.repeat(questions.people, np.diff(questions.target_offsets))
    table[rows, questions.target_items] = 1
    return table


def unseen(prepared, questions):
    """How many items may be recommended to each person asked."""
    seen = [
        len(set(questions.histories.item[a:b].tolist()))
        for a, b in zip(questions.histories.offsets[:-1], questions.histories.offsets[1:], strict=True)
    ]
    return len(prepared.items) - np.array(seen)


def slow_ranks(scores, questions, candidates, filter_seen):
    """Half-rule ranks, one question and one item at a time; targets of a question must differ in score."""
    ranks = []
    for q in range(len(questions)):
        history = questions.histories
        seen = (
            set(history.item[history.offsets[q] : history.offsets[q + 1]].tolist()) if filter_seen else set()
        )
        allowed = [item for item in range(scores.shape[1]) if candidates[item] and item not in seen]
        for target in questions.target_items[questions.target_offsets[q] : questions.target_offsets[q + 1]]:
            better = sum(scores[q, item] > scores[q, target] for item in allowed)
            equal = sum(scores[q, item] == scores[q, target] for item in allowed if item != target)
            ranks.append(1 + better + equal / 2)
    return np.array(ranks)


def several_questions(seed, people=7, items=30):
    """Histories, several targets each (none of them seen) and scores in which no two targets tie."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(np.arange(2, items)) for _ in range(people)]
    seen = [order[: generator.integers(0, 12)] for order in orders]
    targets = [order[12 : 12 + generator.integers(1, 6)] for order in orders]
    scores = generator.integers(0, 6, (people, items)).astype(np.float32)
    for row, chosen in zip(scores, targets, strict=True):
        row[chosen] = generator.choice(6, len(chosen), replace=False)
    offsets = np.concatenate([[0], np.cumsum([len(chosen) for chosen in targets])])
    items_asked = np.concatenate(targets).astype(np.int32)
    events = np.zeros(len(items_asked), np.uint8)
    asked = Questions(np.arange(people), Histories.of(seen), offsets, items_asked, events)
    return asked, scores


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("chunk", [1, 64, 1_000_000])
def test_ranks_equal_the_slow_obvious_way_for_any_chunk(monkeypatch, filter_seen, chunk):
    monkeypatch.setattr(protocol, "CHUNK_FLOATS", chunk)
    for seed in range(5):
        asked, scores = several_questions(seed)
        candidates = np.arange(30) >= 2
        ranking = rank(TableRanker(scores), asked, candidates, filter_seen=filter_seen, k=4)
        np.testing.assert_array_equal(ranking.ranks, slow_ranks(scores, asked, candidates, filter_seen))


def test_a_constant_scorer_gets_the_mean_rank_of_chance_exactly(prepared, questions):
    table = np.full((prepared.people.size, prepared.items.size), 3.25)
    result = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS)
    np.testing.assert_array_equal(result.ranking.ranks, (unseen(prepared, questions) + 1) / 2)
    assert result.means["hit_rate@10"] == 0


def test_minus_infinity_for_everything_is_a_constant_scorer_too(prepared, questions):
    table = np.full((prepared.people.size, prepared.items.size), -np.inf)
    result = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS)
    np.testing.assert_array_equal(result.ranking.ranks, (unseen(prepared, questions) + 1) / 2)
    assert (result.top == 0).all()


def test_random_scores_get_chance_in_the_mean(prepared, questions):
    table = np.random.default_rng(0).random((prepared.people.size, prepared.items.size))
    result = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS)
    chance = np.mean(10 / unseen(prepared, questions))
    assert abs(result.means["hit_rate@10"] - chance) < 4 * np.sqrt(chance * (1 - chance) / len(questions))


def test_an_oracle_gets_1(prepared, questions):
    result = evaluate(TableRanker(oracle_table(prepared, questions)), prepared, questions, settings=SETTINGS)
    for name in ("ndcg@10", "hit_rate@5", "recall@20", "mrr@5", "map@10", "accuracy"):
        assert result.means[name] == pytest.approx(1)
        assert result.intervals[name] == pytest.approx((1, 1))


def test_an_oracle_of_many_level_targets_gets_1():
    asked, _ = several_questions(3)
    scores = np.zeros((7, 30), np.float32)
    scores[np.repeat(np.arange(7), np.diff(asked.target_offsets)), asked.target_items] = 1
    ranking = rank(TableRanker(scores), asked, np.arange(30) >= 2, filter_seen=True, k=5)
    np.testing.assert_allclose(ndcg(ranking.ranks, ranking.offsets, 10), 1)


@given(hnp.arrays(np.float32, (3, 12), elements=st.sampled_from([-1, 0, 0.5, 2])), st.data())
def test_tied_ranks_have_the_mean_of_all_orders_and_never_fall_below_their_place(scores, data):
    chosen = [data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True)) for _ in range(3)]
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in chosen])])
    rows, items = np.repeat(np.arange(3), np.diff(offsets)), np.concatenate(chosen)
    targets = scores[rows, items]
    ranks = tied_ranks(scores, offsets, targets, np.full(3, 12))
    half = [
        1 + (scores[r] > t).sum() + ((scores[r] == t).sum() - 1) / 2
        for r, t in zip(rows, targets, strict=True)
    ]
    for q in range(3):
        mine = slice(offsets[q], offsets[q + 1])
        assert ranks[mine].sum() == pytest.approx(np.sum(half[mine]))
        assert (np.sort(ranks[mine]) >= np.arange(1, len(chosen[q]) + 1) - 1e-9).all()
        for level in np.unique(targets[mine]):
            if (targets[mine] == level).sum() == 1:
                at = offsets[q] + np.flatnonzero(targets[mine] == level)[0]
                assert ranks[at] == half[at]


def test_without_a_target_in_a_tie_ndcg_is_that_of_scikit_learn():
    generator = np.random.default_rng(8)
    scores = generator.integers(0, 8, (20, 15)).astype(np.float32)
    targets = generator.integers(0, 15, 20)
    scores[np.arange(20), targets] = generator.integers(0, 8, 20) + 0.5  # the others tie as they like
    relevance = np.zeros((20, 15))
    relevance[np.arange(20), targets] = 1
    offsets = np.arange(21)
    ranks = tied_ranks(scores, offsets, scores[np.arange(20), targets], np.full(20, 15))
    assert ndcg(ranks, offsets, 15).mean() == pytest.approx(ndcg_score(relevance, scores), abs=1e-9)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 15)),
        elements=st.one_of(
            st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 1.0]),
            st.floats(width=32, allow_nan=False, allow_subnormal=False, max_value=2.0**100),
        ),
    ),
    st.integers(1, 18),
)
def test_top_lists_equal_a_full_stable_sort(scores, k):
    top = top_k(scores, k)
    assert top.shape == (len(scores), k)
    for row, got in zip(scores, top, strict=True):
        order = [item for item in np.argsort(-row, kind="stable")[:k] if row[item] > -np.inf]
        assert got.tolist() == order + [0] * (k - len(order))


def test_nothing_seen_and_nothing_outside_the_catalogue_is_recommended(prepared, questions):
    table = np.random.default_rng(1).random((prepared.people.size, prepared.items.size))
    top = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS).top
    assert top.min() >= 2
    for q, row in enumerate(top):
        history = questions.histories
        assert not set(row.tolist()) & set(history.item[history.offsets[q] : history.offsets[q + 1]].tolist())
        assert len(set(row.tolist())) == len(row)


def test_shuffling_the_questions_changes_no_mean(prepared, questions):
    table = np.random.default_rng(2).random((prepared.people.size, prepared.items.size))
    order = np.random.default_rng(3).permutation(len(questions))
    assert (np.diff(questions.target_offsets) == 1).all()
    turned = Questions(
        questions.people[order],
        questions.histories.select(order),
        questions.target_offsets,
        questions.target_items[order],
        questions.target_events[order],
    )
    first = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS)
    second = evaluate(TableRanker(table), prepared, turned, settings=SETTINGS)
    assert first.means == pytest.approx(second.means)
    np.testing.assert_array_equal(first.per_question["ndcg@10"][order], second.per_question["ndcg@10"])


def test_loss_is_the_cross_entropy_of_the_next_item(prepared, questions):
    uniform = np.zeros((prepared.people.size, prepared.items.size))
    result = evaluate(LogitTableRanker(uniform), prepared, questions, settings=SETTINGS)
    assert result.means["loss"] == pytest.approx(np.log(len(prepared.items)))
    logits = np.random.default_rng(4).normal(0, 3, uniform.shape)
    result = evaluate(LogitTableRanker(logits), prepared, questions, settings=SETTINGS)
    chances = np.exp(logits[:, 2:]) / np.exp(logits[:, 2:]).sum(axis=1, keepdims=True)
    expected = -np.log(chances[questions.people, questions.target_items - 2])
    np.testing.assert_allclose(result.per_question["loss"], expected, rtol=1e-5)


def test_only_rankers_that_say_so_have_a_loss(prepared, questions):
    table = np.zeros((prepared.people.size, prepared.items.size))
    assert not gives_probabilities(TableRanker(table))
    assert "loss" not in evaluate(TableRanker(table), prepared, questions, settings=SETTINGS).means
    with pytest.raises(SettingsError, match="loss"):
        mean_metric(TableRanker(table), prepared, questions, "loss", SETTINGS)


def test_the_short_way_and_the_whole_evaluation_agree(prepared, questions):
    ranker = LogitTableRanker(np.random.default_rng(5).random((prepared.people.size, prepared.items.size)))
    result = evaluate(ranker, prepared, questions, settings=SETTINGS)
    for metric in ("ndcg@10", "map@5", "accuracy", "loss"):
        assert mean_metric(ranker, prepared, questions, metric, SETTINGS) == pytest.approx(
            result.means[metric]
        )


def test_segments_divide_the_questions_and_average_to_the_whole(prepared, questions):
    table = np.random.default_rng(6).random((prepared.people.size, prepared.items.size))
    result = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS)
    for group in {segment.group for segment in result.segments}:
        parts = [segment for segment in result.segments if segment.group == group]
        assert sum(part.questions for part in parts) == len(questions)
        whole = sum(part.questions * part.means["ndcg@10"] for part in parts) / len(questions)
        assert whole == pytest.approx(result.means["ndcg@10"])


def test_segments_by_history_length_are_named_by_their_bounds():
    lengths = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    names = [name for _, name, _ in segments_by_length(lengths)]
    assert names == ["1–2", "3–4", "5–6", "7–8"]
    assert [name for _, name, _ in segments_by_length(np.full(5, 9))] == ["9"]


def test_an_evaluation_becomes_json(prepared, questions):
    table = np.random.default_rng(7).random((prepared.people.size, prepared.items.size))
    result = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS, fit_seconds=1.5)
    tree = json.loads(json.dumps(result.to_json()))
    assert tree["name"] == "table"
    assert tree["fit_seconds"] == 1.5
    assert tree["questions"] == len(questions)
    assert tree["catalogue"] == len(prepared.items)
    assert tree["means"] == result.means
    assert tree["segments"][0]["intervals"]["ndcg@10"] == list(result.segments[0].intervals["ndcg@10"])


def test_a_block_oracle_beats_chance_by_as_much_as_the_world_allows(prepared, questions):
    blocks = block_of(prepared)
    own = blocks[
        np.array([h[0] for h in np.split(questions.histories.item, questions.histories.offsets[1:-1])])
    ]
    table = np.zeros((prepared.people.size, prepared.items.size))
    table[questions.people] = own[:, None] == blocks[None, :]
    result = evaluate(TableRanker(table), prepared, questions, settings=SETTINGS)
    # Ten items in a block, seven of them seen: the target is one of three equals, in the middle of them.
    np.testing.assert_array_equal(result.ranking.ranks, 2)


def test_scores_that_are_not_numbers_are_refused(prepared, questions):
    table = np.full((prepared.people.size, prepared.items.size), np.nan)
    with pytest.raises(DataError, match="not numbers"):
        evaluate(TableRanker(table), prepared, questions, settings=SETTINGS)


def test_questions_of_another_protocol_are_refused(prepared, questions):
    ranker = TableRanker(np.zeros((prepared.people.size, prepared.items.size)))
    seen = replace(questions, target_items=questions.histories.item[questions.histories.offsets[:-1]])
    with pytest.raises(DataError, match="filter_seen"):
        evaluate(ranker, prepared, seen, settings=SETTINGS)
    outside = replace(questions, target_items=np.zeros_like(questions.target_items))
    with pytest.raises(DataError, match="cold_targets"):
        evaluate(ranker, prepared, outside, settings=SETTINGS)
    nobody = questions.select(np.zeros(0, np.int64))
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(ranker, prepared, nobody, settings=SETTINGS)
