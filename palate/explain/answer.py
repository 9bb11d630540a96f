"""Reasons for recommended items, as they are shown: shares of events and fields, and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.data.titles import ItemTitles
from palate.explain.content import Told, inside
from palate.explain.events import EventShares, Scorer, event_shares
from palate.explain.fields import AGAIN, Part, field_shares
from palate.explain.sentence import Cause, Resemblance, sentence
from palate.runtime.items import Vectors
from palate.runtime.model import ServingModel
from palate.schema import FieldKind, Histories, IntArray, Schema

Titles = Callable[[IntArray], Sequence[Mapping[str, Any]]]
"""``{"item": key, "title": text or None}`` of ids."""
Parts = Callable[[IntArray], Sequence[Part]]
"""What the id and each field add to the vectors of items."""

HOW = {FieldKind.IMAGE: "looks", FieldKind.VIDEO: "looks", FieldKind.AUDIO: "sounds"}
ALIKE_COSINE = 0.5
"""Two things look or sound alike where the cosine of what the field says of them is at least this."""
ALIKE_SHARE = 0.25
"""… and the field carries at least this share of the difference."""


def reasons(
    model: ServingModel,
    history: Histories,
    items: IntArray,
    *,
    language: str = "en",
    titles: Titles | None = None,
    parts: Parts | None = None,
    vectors: Vectors | None = None,
    at: int | None = None,
    event: int | None = None,
    told: Mapping[int, Told] | None = None,
) -> list[dict[str, Any]]:
    """Why each of these items is recommended to the person with this history, without PyTorch.

    Of each item ``{"events": [{"item", "event", "share"}, …], "fields": [{"field", "share"}, …],
    "difference", "sentence"}``. ``events`` are those of the history, oldest first; their shares add up to
    ``difference``, the score with the history less the score with none, and so do those of the fields.

    Args:
        model: that recommended them.
        history: one row, as it was recommended from.
        items: int64 ids, each once.
        language: of the sentence, ``en`` or ``zh``.
        titles: keys and titles of ids, by default those of the model's data.
        parts: what the id and each field add to the vectors of ids; by default of the items of the model's
            data. Of items that came later ``model.items.contributions(model.items.described(table, media))``
            tells it; ids that it does not know are to have parts of zeros.
        vectors: as in ``ServingModel.states``.
        at: as in ``ServingModel.states``.
        event: as in ``ServingModel.states``.
        told: what some of the items say in their fields, by id; their answers have ``words``, ``regions``,
            ``frames`` and ``seconds`` besides, as ``palate.explain.content.inside`` gives them.

    Raises:
        SettingsError: another language.
    """
    table = model.vectors if vectors is None else vectors
    explained = Explained(
        Scorer(
            lambda histories: model.states(histories, at, event, vectors=table),
            table,
            model.settings.model.max_history,
        ),
        titles or ItemTitles(model.prepared).of,
        parts or parts_of(model),
        model.prepared.schema,
    )
    answers = explained.reasons(history, items, language)
    if told:
        change = explained.scorer.change(history)
        for item, answer in zip(items.tolist(), answers, strict=True):
            if item in told:
                answer.update(inside(model, change, told[item]))
    return answers


def parts_of(model: ServingModel) -> Parts:
    """The parts of the items of the model's data; of others, zeros."""

    def of(ids: IntArray) -> list[Part]:
        known = ids < model.prepared.items.size
        found = []
        for name, some in model.items.contributions(model.items.known(ids[known])):
            whole = np.zeros((len(ids), some.shape[1]), np.float32)
            whole[known] = some
            found.append((name, whole))
        return found

    return of


@dataclass(frozen=True)
class Explained:
    """A trained recommender as reasons see it, over ONNX Runtime or over the network."""

    scorer: Scorer
    titles: Titles
    parts: Parts
    schema: Schema

    def reasons(self, history: Histories, items: IntArray, language: str) -> list[dict[str, Any]]:
        """As ``reasons``."""
        if not len(items):
            return []
        found = event_shares(self.scorer, history, items)
        own = self.parts(items)
        fields = field_shares(self.scorer.change(history), own, found.difference)
        keys = [entry["item"] for entry in self.titles(history.item.astype(np.int64))]
        events = [self.schema.events[code] for code in history.event.tolist()]
        met = np.isin(items, history.item)
        answers = []
        for place in range(len(items)):
            shares = found.shares[:, place].tolist()
            by_field = {name: float(share[place]) for name, share in fields if name != AGAIN or met[place]}
            alike = self._resemblance(history, found, place, own, by_field)
            answers.append(
                {
                    "events": [
                        {"item": key, "event": event, "share": share}
                        for key, event, share in zip(keys, events, shares, strict=True)
                    ],
                    "fields": [{"field": name, "share": share} for name, share in by_field.items()],
                    "difference": float(found.difference[place]),
                    "sentence": sentence(
                        self._causes(history, found, place), float(found.difference[place]), language, alike
                    ),
                }
            )
        return answers

    def _causes(self, history: Histories, found: EventShares, place: int) -> list[Cause]:
        """Of each item of the history, what its events carried together."""
        shares = found.shares[:, place]
        distinct, which = np.unique(history.item, return_inverse=True)
        totals = np.bincount(which, weights=shares, minlength=len(distinct))
        most = {which[event]: event for event in np.argsort(shares, kind="stable")}  # the largest comes last
        return [
            Cause(self._name(entry), self.schema.events[history.event[most[row]]], float(totals[row]))
            for row, entry in enumerate(self.titles(distinct.astype(np.int64)))
        ]

    def _resemblance(
        self,
        history: Histories,
        found: EventShares,
        place: int,
        own: Sequence[Part],
        by_field: Mapping[str, float],
    ) -> Resemblance | None:
        """The item of the history that is most like this one in a field that carried the recommendation."""
        kinds = {field.name: field.kind for field in self.schema.fields}
        bound = ALIKE_SHARE * found.difference[place]
        strong = [name for name, share in by_field.items() if kinds.get(name) in HOW and share >= bound > 0]
        speaking = np.unique(history.item[found.shares[:, place] > 0]).astype(np.int64)
        if not strong or not len(speaking):
            return None
        field = max(strong, key=lambda name: by_field[name])
        theirs = dict(self.parts(speaking))[field]
        mine = dict(own)[field][place]
        lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(mine)
        cosine = theirs @ mine / np.maximum(lengths, 1e-12)
        nearest = int(cosine.argmax())
        if cosine[nearest] < ALIKE_COSINE:
            return None
        return Resemblance(HOW[kinds[field]], self._name(self.titles(speaking[[nearest]])[0]))

    @staticmethod
    def _name(entry: Mapping[str, Any]) -> str:
        return str(entry["title"] or entry["item"])
