"""The network as a ranker: what it scores for any history, in memory of one chunk."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from palate.data.batches import condition_of, question_batches
from palate.data.past import past_of
from palate.data.store import Prepared
from palate.nn import loss
from palate.nn.model import TasteModel
from palate.runtime.model import Answer, Bonuses
from palate.schema import AnyArray, Histories, QuestionPart, Questions

BATCH_POSITIONS = 16_384


class NetworkRanker:
    """Scores are logits: state of the last event · vector of each item."""

    name = "palate"
    scores_are_logits = True

    def __init__(self, model: TasteModel) -> None:
        self.model = model
        self._table: torch.Tensor | None = None

    def fit(self, prepared: Prepared) -> Self:  # noqa: ARG002 - the contract's signature
        """The ranker itself: its model has been trained already."""
        return self

    @property
    def question_parts(self) -> tuple[QuestionPart, ...]:
        """What questions may say beside their histories."""
        return self.model.question.parts if self.model.question is not None else ()

    def item_vectors(self) -> torch.Tensor:
        """Vectors of the whole catalogue [V, D], made once, with the weights at the first call."""
        if self._table is None:
            self.model.eval()
            with torch.inference_mode():
                self._table = self.model.items()
        return self._table

    def person_vectors(self, histories: Histories) -> torch.Tensor:
        """State after the last event of each history [rows, D]; a history may be empty."""
        table = self.item_vectors()
        self.model.eval()
        vectors = []
        with torch.inference_mode():
            for batch in question_batches(
                histories,
                max_history=self.model.settings.max_history,
                has_time=self.model.has_time,
                events=BATCH_POSITIONS,
            ):
                vectors.append(self.model.last_states(batch.map(self._tensor), table))
        return torch.cat(vectors) if vectors else table.new_empty(0, table.shape[1])

    def score(self, questions: Questions) -> npt.NDArray[np.float32]:
        """Logits [Q, V]; what a question says is heard as far as ``question_parts`` go."""
        with torch.inference_mode():
            states, bonuses = self._known(questions)
            scores = (states @ self.item_vectors().t()).float()
            if bonuses is not None:
                bonuses.add_to(scores)
        result: npt.NDArray[np.float32] = scores.cpu().numpy()
        return result

    def answer(self, questions: Questions) -> Answer:
        """What ``score`` is made of: states [Q, D], and what is added for a few items of each."""
        with torch.inference_mode():
            states, bonuses = self._known(questions)
        if bonuses is None:
            return Answer(states.cpu().numpy(), Bonuses.none(len(questions)))
        return Answer(states.cpu().numpy(), Bonuses(*(part.cpu().numpy() for part in bonuses)))

    def _known(self, questions: Questions) -> tuple[torch.Tensor, loss.Bonuses | None]:
        histories, states = questions.histories, self.person_vectors(questions.histories)
        condition = condition_of(questions)
        if self.model.question is not None and condition is not None:
            states = self.model.question(states, condition.map(self._tensor))
        if self.model.again is None:
            return states, None
        everyone, has_time = np.arange(len(histories)), self.model.has_time
        past = past_of(histories, everyone, histories.lengths, has_time=has_time)
        return states, self.model.again(states, self.item_vectors(), past.map(self._tensor))

    def _tensor(self, numbers: AnyArray) -> torch.Tensor:
        """The array where the network is."""
        return torch.from_numpy(numbers).to(self.item_vectors().device)
