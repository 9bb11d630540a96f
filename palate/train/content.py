"""Content learns to stand alone, after the network has learned to recommend what it knows.

Items that nobody has met are carried by their fields. If ids were left out now and then while everything else
learns, fields would learn to carry, and all vectors of known items would be worse for it: on MovieLens a
twentieth of the ids costs 2 % of NDCG@10. So this comes afterwards, and moves nothing that was learned. The
vectors e_v of known items stand still, and so does what reads histories; only encoders, projections
and gates of fields, and the "unknown" id vector u, learn, by the same losses over a table in which a share of
the items is told by content alone:

    e'_v = u + c_v with probability p, else e_v          c_v = Σ_f g_f · P_f normalise(encoder_f(x_vf))

At the end each known item's id vector becomes e_v − c_v: its whole vector is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from palate.data.labels import Labels
from palate.data.store import Prepared
from palate.nn.model import TasteModel, Vectors
from palate.schema import PADDING, UNKNOWN, Batch
from palate.settings import Settings
from palate.train.checkpoint import Progress
from palate.train.histories import HistoryCourse
from palate.train.loop import learn
from palate.train.progress import Display


def teach_content(
    model: TasteModel,
    prepared: Prepared,
    settings: Settings,
    *,
    labels: tuple[Labels, ...],
    precision: str,
    display: Display,
) -> Progress:
    """New items are carried by their content; vectors of known items, and of histories, are as before.

    It begins from the network as it is, so that a run that was interrupted here comes to the same weights.

    Returns:
        How it went.
    """
    display.stop("Known items are learned. Now content learns to carry those that nobody has met.")
    passes = settings.train.model_copy(update={"max_epochs": settings.train.content_passes})
    settings = settings.model_copy(update={"train": passes})
    course = ContentCourse(model, prepared, settings, labels)
    with course.all_else_at_rest():
        taught = learn(
            course,
            model,
            settings,
            None,
            precision="bfloat16" if precision == "bfloat16" else "float32",
            run="",
            resume=False,
            display=display,
        )
    course.give_back()
    return taught


class ContentCourse(HistoryCourse):
    """Passes over all histories, in which items are told by their content."""

    def __init__(
        self, model: TasteModel, prepared: Prepared, settings: Settings, labels: tuple[Labels, ...]
    ) -> None:
        super().__init__(model, prepared, settings, labels)
        model.eval()
        with torch.no_grad():
            self.known_VD = model.items()

    def begin(self) -> None:
        """Nothing is set: the network has learned already."""

    @contextmanager
    def all_else_at_rest(self) -> Iterator[None]:
        """Meanwhile nothing learns but the fields, the "unknown" id vector and what classifies items."""
        items = self.model.items
        learning = {*items.fields.parameters(), *self.model.heads.parameters(), items.id.weight}
        resting = [each for each in self.model.parameters() if each.requires_grad and each not in learning]
        for parameter in resting:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in resting:
                parameter.requires_grad_(True)

    def validate(self) -> float | None:
        """The validation metric where new items are asked for; that of known ones stays what it was."""
        if self.questions is None or not self.prepared.has_cold_split:
            return None
        self.give_back()
        return self.metric(self.questions)

    def give_back(self) -> None:
        """Every known item has the vector that it had: its id says what content does not."""
        items = self.model.items
        self.model.eval()
        with torch.no_grad():
            rows = items.warm.nonzero().squeeze(1)
            items.id.weight[rows] = self.known_VD[rows] - items.content()[rows]

    def vectors_of(
        self, network: torch.nn.Module, batch: Batch[torch.Tensor], rows: torch.Tensor | None
    ) -> Vectors:
        """States of histories as they were learned, and a table that content alone tells a share of."""
        del network
        model = self.model
        known = self.known_VD if rows is None else self.known_VD[rows]
        with torch.no_grad():
            heard = model.vectors(known, model.states(batch, known), batch)
        told = torch.rand(len(known), device=known.device) < self.settings.train.content_share
        if rows is None:
            told[PADDING] = False
        unknown = model.items.id(torch.tensor([UNKNOWN], device=known.device))
        bare = model.items.content(rows) + unknown
        return heard._replace(table=torch.where(told.unsqueeze(1), bare, known))
