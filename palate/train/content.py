"""Content learns to stand alone, after the network has learned to recommend what it knows.

Items that nobody has met are carried by their fields. If ids were left out now and then while everything else
learns, fields would learn to carry, and all vectors of known items would be worse for it: on MovieLens a
twentieth of the ids costs 2 % of NDCG@10. So this comes afterwards, and moves nothing that was learned. The
vectors e_v of known items stand still, and so does what reads histories; only encoders, projections
and gates of fields, and the "unknown" id vector u, learn to say what those vectors are (van den Oord et al.,
"Deep content-based music recommendation", 2013):

    Σ_v ‖u + c_v − e_v‖² / Σ_v ‖ē − e_v‖²          c_v = Σ_f g_f · P_f normalise(encoder_f(x_vf))

over known items v, with ē the mean of their vectors: whoever says ē of every item has the loss 1. People are
not looked at, and neither are items that training did not meet. Each field of an item is left out of a step
with probability ``FIELDS_DROPPED``, since of new items much is not known. A twentieth of the known items is
held back; what people took of them says afterwards how far told vectors reach (``palate.train.reach``).

Texts, categories, numbers and vectors begin again, as they were before any training: beside ids they have
learned known items by heart. Encoders of pictures, clips and tracks go on, for they have more to learn, and
so does everything where classes are told from content (``item_class``). At the end each known item's id
vector becomes e_v − c_v: its whole vector is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from palate.data.labels import Labels
from palate.data.store import Prepared
from palate.nn.item import ItemTower
from palate.nn.model import TasteModel
from palate.schema import FIRST_ID, MEDIA, UNKNOWN, IntArray
from palate.settings import Settings
from palate.train.checkpoint import Progress
from palate.train.histories import validation_metric, validation_questions
from palate.train.items import STEPS_OF_A_PASS, ItemCourse, plan_items
from palate.train.loop import learn
from palate.train.progress import Display
from palate.train.reach import best_reach, held_back

FIELDS_DROPPED = 0.1
SLOWER, DECAY = 0.5, 0.05
"""The learning rate as a share of ``train.learning_rate``, and the weight decay."""


def teach_content(
    model: TasteModel,
    prepared: Prepared,
    settings: Settings,
    *,
    labels: tuple[Labels, ...],
    precision: str,
    display: Display,
    first: Mapping[str, torch.Tensor],
) -> Progress:
    """New items are carried by their content; vectors of known items, and of histories, are as before.

    It begins from the network as it is, so that a run that was interrupted here comes to the same weights.

    Args:
        first: parameters of the fields with which they begin again, by name (``first_parameters``).

    Returns:
        How it went; with the validation metric where new items are asked for.
    """
    known = known_items(model, prepared)
    if not len(known):
        return Progress()
    display.stop("Known items are learned. Now content learns to carry those that nobody has met.")
    course = ContentCourse(model, prepared, settings, labels, known)
    begin_again(model.items, first)
    rate = SLOWER * settings.train.learning_rate
    changes = {"max_epochs": course.passes, "learning_rate": rate, "weight_decay": DECAY}
    with course.all_else_at_rest():
        return learn(
            course,
            model,
            settings.model_copy(update={"train": settings.train.model_copy(update=changes)}),
            None,
            precision="bfloat16" if precision == "bfloat16" else "float32",
            run="",
            resume=False,
            display=display,
        )


def known_items(model: TasteModel, prepared: Prepared) -> IntArray:
    """Ids of the items that training met and that have content."""
    model.items.encode_new()
    known: IntArray = np.flatnonzero(model.items.described.cpu().numpy() & prepared.warm)
    return known[known >= FIRST_ID]


def first_parameters(items: ItemTower) -> dict[str, torch.Tensor]:
    """Copies of what fields are told by at this moment, by name; of media without their encoders."""
    return {
        f"{number}.{name}": value.detach().clone()
        for number, part in enumerate(items.projections)
        for name, value in part.named_parameters()
        if part.column.shape.kind not in MEDIA or not name.startswith("column.")
    }


def begin_again(items: ItemTower, first: Mapping[str, torch.Tensor]) -> None:
    """These parameters of the fields have these values again, and what is kept is what encoders then make.

    What media say goes on, unless they were silenced: then it is told by the encoder as it is, in a new way.
    """
    with torch.no_grad():
        for number, part in enumerate(items.projections):
            if part.column.shape.kind not in MEDIA or not part.projection.weight.any():
                for name, parameter in part.named_parameters():
                    if (first_value := first.get(f"{number}.{name}")) is not None:
                        parameter.copy_(first_value)
    items.refresh()


class ContentCourse(ItemCourse):
    """Passes over items that are known, in ``train.content_passes``; no more of them, and no more steps, than
    take ``train.content_steps``.

    Args:
        known: ids of items whose vectors are to be told by their content.
    """

    def __init__(
        self,
        model: TasteModel,
        prepared: Prepared,
        settings: Settings,
        labels: tuple[Labels, ...],
        known: IntArray,
    ) -> None:
        self.held = held_back(known, settings.seed)
        known = np.setdiff1d(known, self.held)
        super().__init__(model, settings, labels, known)
        self.prepared, self.passes_done = prepared, 0
        model.items.id.sparse = True  # "unknown" learns alone of that table, and the rest does not decay
        model.eval()
        with torch.no_grad():
            self.known_VD = model.items()
        self.known = torch.from_numpy(known).to(self.known_VD.device)
        self.variance = self.known_VD[self.known].var(dim=0, correction=0).sum().clamp_min(1e-12)
        seed, most = settings.seed, settings.train.content_steps
        self.rounds = max(1, STEPS_OF_A_PASS // len(plan_items(self.training, seed, 0)))
        self.steps = most
        self.passes = max(1, min(settings.train.content_passes, most // len(self.plan(0))))
        self.steps = most // self.passes

    def begin(self) -> None:
        """The "unknown" id vector makes the mean right; all else is as it was learned."""
        items = self.model.items
        with torch.no_grad():
            items.id.weight[UNKNOWN] = (self.known_VD - items.content())[self.known].mean(dim=0)

    def plan(self, epoch: int) -> list[IntArray]:
        """All items, several times where they are few; the settings' steps are those of histories."""
        rounds = range(epoch * self.rounds, (epoch + 1) * self.rounds)
        plans = (plan_items(self.training, self.settings.seed, number) for number in rounds)
        return [piece for plan in plans for piece in plan][: self.steps]

    @contextmanager
    def all_else_at_rest(self) -> Iterator[None]:
        """Meanwhile nothing learns but the fields, the "unknown" id vector and what classifies items."""
        items = self.model.items
        learning = {*items.fields.parameters(), *self.model.heads.parameters(), items.id.weight}
        resting = [each for each in self.model.parameters() if each.requires_grad and each not in learning]
        for parameter in resting:
            parameter.requires_grad_(False)
        try:
            with items.standing():
                yield
        finally:
            for parameter in resting:
                parameter.requires_grad_(True)

    def losses(self, examples: IntArray) -> list[torch.Tensor]:
        """How far content is from the vectors of the known among these items, and the tasks' losses."""
        device = self.known_VD.device
        rows = torch.from_numpy(examples).to(device)
        rows = rows[torch.isin(rows, self.known)]
        if not len(rows):
            return super().losses(examples)
        told = self.model.items.id(torch.tensor([UNKNOWN], device=device))
        for part in self.model.items.projections:
            heard = torch.rand(len(rows), 1, device=device) >= FIELDS_DROPPED
            told = told + part(rows) * heard
        away = (told - self.known_VD[rows]).square().sum(dim=1).mean() / self.variance
        return [away, *super().losses(examples)]

    def validate(self) -> float | None:
        """After the last pass all is in its place; the validation metric where new items are asked for."""
        self.passes_done += 1
        if self.passes_done < self.passes:
            return None
        self.model.eval()
        self.give_back()
        if len(self.held):
            self.reach_out()
            self.give_back()
        asks_new = self.prepared.has_cold_split
        questions = validation_questions(self.prepared, self.settings) if asks_new else None
        if questions is None:
            return None
        return validation_metric(self.model, self.prepared, questions, self.settings)

    def reach_out(self) -> None:
        """What content says is stretched about its mean, as far as suits the items that were held back."""
        items, held = self.model.items, torch.from_numpy(self.held).to(self.known.device)
        with torch.no_grad():
            content, unknown = items.content(), items.id.weight[UNKNOWN]
            mean = content[torch.cat([self.known, held])].mean(dim=0)
            reach = best_reach(
                self.model, self.prepared, self.settings, self.labels,
                held, unknown + content[held], unknown + mean,
            )  # fmt: skip
            unknown += (1 - reach) * mean
            for part in items.projections:
                part.gate.mul_(reach)

    def give_back(self) -> None:
        """Every known item has the vector that it had: its id says what content does not."""
        items = self.model.items
        with torch.no_grad():
            rows = items.warm.nonzero().squeeze(1)
            items.id.weight[rows] = self.known_VD[rows] - items.content()[rows]
