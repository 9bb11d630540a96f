"""What every ranker must keep to, written once.

Each function takes a fitted ranker, questions and the number of item ids; ``RANKER_CONTRACT`` is the list to
parametrise a test with.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palate.evaluate.protocol import Ranker
from palate.schema import Histories, Questions


def scores_every_item_as_float32(ranker: Ranker, questions: Questions, items: int) -> None:
    scores = ranker.score(questions)
    assert scores.shape == (len(questions), items)
    assert scores.dtype == np.float32
    assert not np.isnan(scores).any()
    assert not np.isposinf(scores).any()


def says_the_same_twice(ranker: Ranker, questions: Questions, items: int) -> None:
    np.testing.assert_array_equal(ranker.score(questions), ranker.score(questions))


def leaves_the_questions_as_they_were(ranker: Ranker, questions: Questions, items: int) -> None:
    before = [questions.histories.offsets.copy(), questions.histories.item.copy()]
    ranker.score(questions)
    np.testing.assert_array_equal(before[0], questions.histories.offsets)
    np.testing.assert_array_equal(before[1], questions.histories.item)


def gives_an_array_to_keep(ranker: Ranker, questions: Questions, items: int) -> None:
    first = ranker.score(questions)
    kept = first.copy()
    first[:] = -np.inf
    np.testing.assert_array_equal(ranker.score(questions), kept)


def batch_equals_single(ranker: Ranker, questions: Questions, items: int) -> None:
    together = ranker.score(questions)
    singly = np.concatenate([ranker.score(one) for one in questions.chunks(1)])
    np.testing.assert_allclose(together, singly, rtol=2e-4, atol=2e-5)


def order_of_questions_is_nothing(ranker: Ranker, questions: Questions, items: int) -> None:
    order = np.random.default_rng(5).permutation(len(questions))
    turned = Questions.without_answer(questions.histories.select(order))
    np.testing.assert_allclose(
        ranker.score(turned),
        ranker.score(Questions.without_answer(questions.histories))[order],
        rtol=2e-4,
        atol=2e-5,
    )


def person_and_targets_are_nothing(ranker: Ranker, questions: Questions, items: int) -> None:
    stranger = replace(
        questions,
        people=np.ones_like(questions.people),
        target_items=np.full_like(questions.target_items, items - 1),
    )
    np.testing.assert_array_equal(ranker.score(stranger), ranker.score(questions))


def empty_history_is_answered(ranker: Ranker, questions: Questions, items: int) -> None:
    scores = ranker.score(Questions.without_answer(Histories.of([[], []])))
    assert scores.shape == (2, items)
    assert not np.isnan(scores).any()
    np.testing.assert_array_equal(scores[0], scores[1])


RANKER_CONTRACT = (
    scores_every_item_as_float32,
    says_the_same_twice,
    leaves_the_questions_as_they_were,
    gives_an_array_to_keep,
    batch_equals_single,
    order_of_questions_is_nothing,
    person_and_targets_are_nothing,
    empty_history_is_answered,
)
