"""The face: fit, recommend, similar, evaluate, save, load. Keys in, keys out, a data frame back."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import polars as pl
import torch

from palate.bundle import Bundle, load_bundle, save_bundle
from palate.data.additions import add_items, media_of_files, remove_items, update_items
from palate.data.columns import CategoryColumn
from palate.data.content import NO_MEDIA, ContentEncoder
from palate.data.labels import Labels, predicted_fields
from palate.data.media import Told
from palate.data.moments import microseconds
from palate.data.source import read_dataset
from palate.data.store import Prepared, prepare
from palate.data.titles import ItemTitles
from palate.errors import DataError, NotFittedError, SettingsError, UnknownKeyError, did_you_mean
from palate.evaluate.classes import (
    ClassJudgement,
    class_probabilities,
    decide,
    judge_classes,
    set_thresholds,
)
from palate.evaluate.judgement import Judgement, judge
from palate.evaluate.network import NetworkRanker
from palate.evaluate.ties import top_k
from palate.explain.answer import Explained
from palate.explain.events import Scorer
from palate.explain.fields import Part as ItemPart
from palate.explain.shapley import Scores
from palate.explain.without import Without, without
from palate.nn.model import TasteModel
from palate.schema import (
    FIRST_ID,
    UNKNOWN,
    Among,
    BoolArray,
    Dataset,
    Histories,
    IdMap,
    IntArray,
    Key,
    Media,
    Note,
    Part,
    QuestionPart,
    Questions,
)
from palate.settings import Settings
from palate.train.checkpoint import Progress
from palate.train.content import first_parameters, teach_content
from palate.train.decide import decided
from palate.train.histories import train_on_histories
from palate.train.items import train_on_items
from palate.train.progress import Display, Silent
from palate.train.start import start_from

if TYPE_CHECKING:
    import pandas as pd

Unknown = Literal["error", "skip"]
CHANGE_NO_WEIGHTS = {"baselines", "references", "cold_baselines", "bootstrap", "confidence"}
CHUNK_FLOATS = 16_000_000
"""Scores alive at a time while recommending: 64 MB."""


class Recommender:
    """A recommender of items to people, from what people did and what items are.

    >>> import palate
    >>> recommender = palate.Recommender().fit("dataset.yaml")      # doctest: +SKIP
    >>> recommender.recommend(users=["17850"], k=5)                 # doctest: +SKIP
    """

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None) -> None:
        """A recommender that is not trained yet.

        Raises:
            SettingsError: an unknown name or an impossible value.
        """
        self._given = (
            settings.model_dump(exclude_unset=True)
            if isinstance(settings, Settings)
            else dict(settings or {})
        )
        self.settings = Settings.build(self._given)
        self._bundle: Bundle | None = None
        self._ranker: NetworkRanker | None = None

    # Training

    def fit(
        self,
        dataset: Dataset | str | Path,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        display: Display | None = None,
        told: Told | None = None,
    ) -> Self:
        """The recommender is trained on this data set, and saved in ``folder`` where one is given.

        The data set's own settings count where this recommender's do not say otherwise.

        Args:
            dataset: a ``Dataset``, or the path of a ``dataset.yaml``, a folder or a table.
            folder: where prepared data, checkpoints, logs and the finished bundle go.
            resume: go on from the last checkpoint in ``folder``, to the same weights as without a break.
            display: is told how training goes; nothing is shown by default.
            told: is told how the decoding of pictures, clips and tracks goes.

        Raises:
            PalateError: data, settings or checkpoint cannot be used; the message says why.
        """
        if not isinstance(dataset, Dataset):
            dataset = read_dataset(dataset)
        if resume and folder is None:
            raise SettingsError("resume=True needs the folder that the interrupted run wrote to.")
        self.settings = Settings.build(dataset.settings, self._given)
        folder = Path(folder) if folder is not None else None
        prepared = prepare(dataset, self.settings, folder / "data" if folder is not None else None, told)
        return self.fit_prepared(prepared, folder=folder, resume=resume, display=display)

    def fit_prepared(
        self,
        prepared: Prepared,
        *,
        folder: Path | None = None,
        resume: bool = False,
        display: Display | None = None,
    ) -> Self:
        """As ``fit``, on data that were cleaned and split before; ``folder`` / "data" holds them already."""
        self.settings = settings = decided(self.settings, prepared)
        predicted = predicted_fields(settings, prepared.schema.fields)
        fields = [field for field in prepared.schema.fields if field not in predicted]
        read = tuple(fields) if settings.model.content else ()
        encoder = ContentEncoder.fit(
            prepared.catalogue, read, prepared.warm, settings.model.text, prepared.media
        )
        labels = tuple(Labels.learn(prepared, field, settings.seed) for field in predicted)
        classes = tuple(of.column for of in labels)
        torch.manual_seed(settings.seed)
        model = _build_model(settings, prepared, encoder, prepared.items.size, classes)
        if settings.train.start_from is not None:
            other = load_bundle(Path(settings.train.start_from))
            start_from(model, encoder, other.weights, other.content_encoder)
        first = {} if labels else first_parameters(model.items)  # where fields tell classes, they go on
        display = display or Silent()
        train = train_on_histories if settings.recommends else train_on_items
        progress = train(
            model,
            prepared,
            settings,
            folder,
            run=_run_identity(prepared, settings),
            resume=resume,
            display=display,
            labels=labels,
        )
        if settings.recommends and model.items.has_content and settings.train.content_passes:
            taught = teach_content(
                model,
                prepared,
                settings,
                labels=labels,
                precision=progress.precision,
                display=display,
                first=first,
            )
            progress.seconds += taught.seconds
            progress.best_metric = progress.best_metric if taught.best_metric is None else taught.best_metric
        set_thresholds(model, labels)
        self._adopt(Bundle(settings, prepared, encoder, model.state_dict(), progress, classes), model)
        if folder is not None:
            save_bundle(self._fitted(), folder, data_is_there=True)
        return self

    @property
    def progress(self) -> Progress:
        """How training went, pass by pass."""
        return self._fitted().progress

    @property
    def content_notes(self) -> tuple[Note, ...]:
        """What of the items' fields could not be read by the network."""
        bundle = self._fitted()
        notes = bundle.content_encoder.encode(bundle.prepared.catalogue, bundle.prepared.media).notes
        predicted = tuple(
            Note(f"field '{column.name}'", 0, 0, "predicted by item_class, so the network does not read it")
            for column in bundle.classes
        )
        return tuple(note for note in (*notes, *predicted) if note.detail)

    def can_be_judged(self, part: Part = Part.TEST) -> bool:
        """Whether rankings were learned, and anybody has both a history and a held-out item."""
        judging = self.settings.evaluate
        return self.settings.recommends and bool(
            len(
                self.prepared.questions(
                    part, filter_seen=judging.filter_seen, cold_targets=judging.cold_targets
                )
            )
        )

    @property
    def prepared(self) -> Prepared:
        """The cleaned and split data, with its report."""
        return self._fitted().prepared

    @property
    def content_encoder(self) -> ContentEncoder:
        """What turns items' fields into the numbers that the network reads."""
        return self._fitted().content_encoder

    @property
    def model(self) -> TasteModel:
        """The network."""
        return self._network().model

    # Answers

    def recommend(
        self,
        users: Sequence[Key] | pl.Series | None = None,
        *,
        histories: Sequence[Sequence[Key]] | None = None,
        k: int = 10,
        filter_seen: bool | None = None,
        items: Sequence[Key] | pl.Series | None = None,
        exclude: Sequence[Key] | pl.Series | None = None,
        at: datetime.datetime | str | None = None,
        event: str | None = None,
        explain: bool = False,
        language: str = "en",
        unknown: Unknown = "error",
    ) -> pl.DataFrame:
        """The k best items for each person, best first: columns ``user``, ``item``, ``rank``, ``score``.

        Args:
            users: keys of people in the data; everything known of them counts.
            histories: instead of users, item keys in time order, oldest first; ``user`` is then the
                number of the history, from 0. An empty history is a person who is new.
            k: items per person; fewer where fewer may be recommended.
            filter_seen: leave out what the person met before; by default as in ``evaluate.filter_seen``.
            items: only these may be recommended.
            exclude: these may not.
            at: the time to recommend for, a ``datetime`` or a text in ISO 8601; without a zone it is in UTC.
                Before a person's last event it counts as right after that event. Wants a model trained with
                ``model.question_time``.
            event: the type of event to recommend for, one of those that are predicted. Wants a model trained
                with ``model.question_event``.
            explain: a column ``reasons`` says why, as ``explain`` does.
            language: of the sentence in the reasons, ``en`` or ``zh``.
            unknown: what to do with keys that are not known: raise, or leave them out.

        Raises:
            UnknownKeyError: a key is unknown and ``unknown`` is "error".
            SettingsError: neither or both of users and histories, or k is below 1; ``at`` or ``event`` is
                none, or the model was not trained to be asked for it.
        """
        if k < 1:
            raise SettingsError(f"k is {k}; wanted at least 1.")
        self._check_recommends()
        prepared = self.prepared
        names, asked = self._histories_of(users, histories, unknown)
        allowed = self._allowed(items, exclude, unknown)
        moment = self._moment(at) if at is not None else None
        code = self._event_code(event) if event is not None else None
        filter_seen = self.settings.evaluate.filter_seen if filter_seen is None else filter_seen
        ranker = self._network()
        explained = self._explained(moment, code) if explain else None
        tables = []
        size = max(1, CHUNK_FLOATS // prepared.items.size)
        for start in range(0, len(asked), size):
            rows = np.arange(start, min(start + size, len(asked)))
            chunk = asked.select(rows)
            scores = ranker.score(Questions.without_answer(chunk, moment, code))
            scores[:, ~allowed] = -np.inf
            if filter_seen:
                scores[chunk.rows(), chunk.item] = -np.inf
            tables.append(self._as_table(top_k(scores, min(k, prepared.items.size)), scores, rows))
        found = pl.concat(tables) if tables else _NOTHING
        place = found["row"].to_numpy()
        if explained is not None:
            reasons = [
                reason
                for row, ids in found.group_by("row", maintain_order=True).agg("id").iter_rows()
                for reason in explained.reasons(asked.select(np.array([row])), np.array(ids), language)
            ]
            found = found.with_columns(_reasons(reasons, prepared.items))
        return found.select(
            names.gather(place).alias("user"),
            pl.Series("item", prepared.items.keys(found["id"].to_numpy()), dtype=prepared.items.series.dtype),
            "rank",
            "score",
            *(["reasons"] if explain else []),
        )

    def explain(
        self,
        items: Sequence[Key],
        *,
        user: Key | None = None,
        history: Sequence[Key] | None = None,
        at: datetime.datetime | str | None = None,
        event: str | None = None,
        language: str = "en",
    ) -> pl.DataFrame:
        """Why one person would be recommended these items: columns ``item``, ``score``, ``reasons``.

        ``reasons`` has ``events``, the history with the share of each event, oldest first; ``fields``, the
        share of the item's id and of each field, and of having been met before (``again``); ``difference``,
        the score less that of somebody without events, to which either shares add up; and ``sentence``.

        Args:
            items: keys; one that comes twice is explained once.
            user: key of a person in the data.
            history: instead of a user, item keys in time order, oldest first.
            at: as in ``recommend``.
            event: as in ``recommend``.
            language: of the sentence, ``en`` or ``zh``.

        Raises:
            UnknownKeyError: a key is unknown.
            SettingsError: neither or both of user and history; no such language; as in ``recommend``.
        """
        explained, asked, ids = self._why(items, user, history, at, event)
        return pl.DataFrame(
            {
                "item": pl.Series(self.prepared.items.keys(ids), dtype=self.prepared.items.series.dtype),
                "score": explained.scorer.scores(asked, ids)[0],
                "reasons": _reasons(explained.reasons(asked, ids, language), self.prepared.items),
            }
        )

    def without(
        self,
        item: Key,
        *,
        user: Key | None = None,
        history: Sequence[Key] | None = None,
        k: int = 10,
        at: datetime.datetime | str | None = None,
        event: str | None = None,
    ) -> Without:
        """The smallest set of past events without which the item leaves the top k.

        What is taken away stays out of the list meanwhile, where seen items are filtered.

        Args:
            item: key of the item.
            user: as in ``explain``.
            history: as in ``explain``.
            k: length of the list.
            at: as in ``recommend``.
            event: as in ``recommend``.

        Raises:
            UnknownKeyError: a key is unknown.
            SettingsError: neither or both of user and history, or k is below 1; as in ``recommend``.
            DataError: the item is not among the k best.
        """
        if k < 1:
            raise SettingsError(f"k is {k}; wanted at least 1.")
        explained, asked, ids = self._why([item], user, history, at, event)
        allowed = self.may_be_recommended()
        if self.settings.evaluate.filter_seen:
            allowed[asked.item] = False
        if not allowed[ids[0]]:
            raise DataError(f"{item!r} is not recommended: the person met it before, or it was removed.")
        return without(explained.scorer, asked, int(ids[0]), np.flatnonzero(allowed), k=k)

    def change(self, *, user: Key | None = None, history: Sequence[Key] | None = None) -> Scores:
        """What the history of one person adds to what is asked for, float64 [D]: its product with an item's
        vector is what it adds to the item's score. ``palate.explain.content`` looks into items by it.

        Raises:
            UnknownKeyError: a key is unknown.
            SettingsError: neither or both of user and history.
        """
        explained, asked, _ = self._why([], user, history, None, None)
        return explained.scorer.change(asked)

    def scorer(self, at: int | None = None, event: int | None = None) -> Scorer:
        """The network as reasons see it.

        Args:
            at: the time asked for, in microseconds since 1970.
            event: the code of the event type asked for.
        """
        ranker = self._network()
        return Scorer(
            lambda histories: ranker.answer(Questions.without_answer(histories, at, event)),
            ranker.item_vectors().cpu().numpy(),
            self.settings.model.max_history,
        )

    def shuffled(self, seed: int = 0, layers: Collection[str] | None = None) -> Self:
        """The same recommender with the numbers of each tensor of weights in random order.

        What was learned is gone, and reasons are to change with it.

        Args:
            seed: of the order.
            layers: only tensors whose names begin like one of these, in ``model.named_parameters()``; what
                was kept of the fields belongs to ``items``.
        """
        bundle = self._fitted()
        model, generator = copy.deepcopy(self.model), torch.Generator().manual_seed(seed)
        named = [*model.named_parameters(), *(("items.", column.vectors) for column in model.items.kept)]
        begins = ("",) if layers is None else tuple(layers)
        with torch.no_grad():
            for weights in (weights for name, weights in named if name.startswith(begins)):
                order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
                weights.copy_(weights.flatten()[order].view_as(weights))
        other = type(self)(self._given)
        other.settings = self.settings
        other._adopt(replace(bundle, weights=model.state_dict()), model)
        return other

    def similar_items(self, items: Sequence[Key], k: int = 10, *, unknown: Unknown = "error") -> pl.DataFrame:
        """The k items whose vectors lie closest by cosine to each: ``of``, ``item``, ``rank``, ``score``.

        Items that were removed may be asked about, and are nobody's answer.

        Raises:
            UnknownKeyError: a key is unknown and ``unknown`` is "error".
        """
        ids = self._ids(items, "item", unknown)
        vectors = self._network().item_vectors().cpu().numpy()
        return _nearest(vectors, ids, self.prepared.items, "item", k, self.prepared.removed)

    def similar_users(self, users: Sequence[Key], k: int = 10, *, unknown: Unknown = "error") -> pl.DataFrame:
        """The k people whose taste lies closest by cosine to each: ``of``, ``user``, ``rank``, ``score``.

        Raises:
            UnknownKeyError: a key is unknown and ``unknown`` is "error".
        """
        self._check_recommends()
        ids = self._ids(users, "user", unknown)
        vectors = self._network().person_vectors(self.prepared.known()).cpu().numpy()
        return _nearest(vectors, ids, self.prepared.people, "user", k)

    def classify(
        self,
        items: Sequence[Key] | pl.Series | None = None,
        *,
        table: pl.DataFrame | pd.DataFrame | None = None,
        media: Mapping[str, Media] = NO_MEDIA,
        media_folder: str | Path | None = None,
        field: str | None = None,
        unknown: Unknown = "error",
    ) -> pl.DataFrame:
        """What the items are, by their content alone: columns ``item``, ``label``, ``probability``.

        Of a field of kind category each item has one row. Of kind categories it has a row for each label that
        is as probable as the threshold chosen on validation items or, if none is, for the most probable one;
        the most probable first. An item of which nothing is known gets what is most frequent.

        Args:
            items: keys of items in the data.
            table: instead of items, new ones: a column ``item`` with keys, and any of the data's fields. They
                are not added.
            media: by field, what is to be seen or heard of the items of the table, decoded.
            media_folder: where the paths of files in the table begin.
            field: the field to predict, where the model was trained to predict several.
            unknown: what to do with keys that are not known: raise, or leave them out.

        Raises:
            UnknownKeyError: a key is unknown and ``unknown`` is "error".
            SettingsError: neither or both of items and table; the model was trained to predict no field, or
                several of which none is named.
            DataError: the table cannot be used.
        """
        bundle = self._fitted()
        place = self._class_place(field)
        if (items is None) == (table is None):
            raise SettingsError("Give either items or table: what is to be classified?")
        prepared, model = bundle.prepared, self.model
        if table is not None:
            frame = table if isinstance(table, pl.DataFrame) else pl.from_pandas(table)
            shown = self._media_of(frame, media, media_folder)
            extended = replace(bundle, prepared=add_items(prepared, frame, shown))
            prepared, model = extended.prepared, _restore_model(extended)
            ids = prepared.items.ids(frame["item"])
        else:
            ids = self._ids(items if items is not None else (), "item", unknown)
        head = model.class_heads()[place]
        probabilities = class_probabilities(model, place, ids)
        given = decide(probabilities, float(head.threshold) if head.several else None)
        rows, labels = np.nonzero(given)
        chosen = probabilities[rows, labels]
        order = np.lexsort((-chosen, rows))
        rows, labels, chosen = rows[order], labels[order], chosen[order]
        keys = prepared.items
        return pl.DataFrame(
            {
                "item": pl.Series(keys.keys(ids[rows]), dtype=keys.series.dtype),
                "label": pl.Series(bundle.classes[place].vocabulary, dtype=pl.String).gather(labels),
                "probability": chosen,
            }
        )

    # Judging

    def evaluate(
        self,
        *,
        part: Part = Part.TEST,
        among: Among = Among.ALL,
        title: str = "",
        on_start: Callable[[str], None] | None = None,
        **changes: Any,
    ) -> Judgement:
        """How well held-out items are found, beside the traditional methods, on the run's own split.

        Args:
            part: the held-out part to ask about.
            among: rank all items together, or those without a training event among themselves.
            title: what the report calls it.
            on_start: is told the name of each row before it is made.
            changes: fields of ``settings.evaluate`` that are different this time, for example
                ``filter_seen=False``, or ``baselines=[]`` for the model alone.

        Raises:
            DataError: nobody has a held-out item.
            SettingsError: a change is no field of ``settings.evaluate``, or impossible.
        """
        self._check_recommends()
        return judge(
            self._network(),
            self.prepared,
            Settings.build(self.settings.model_dump(), {"evaluate": changes}).evaluate,
            part=part,
            among=Among(among),
            told=self._network().question_parts,
            seed=self.settings.seed,
            fit_seconds=self.progress.seconds,
            title=title,
            on_start=on_start,
        )

    def evaluate_classes(
        self, *, part: Part = Part.TEST, on_start: Callable[[str], None] | None = None
    ) -> list[ClassJudgement]:
        """How well each predicted field is told of held-out items, beside the usual ways.

        A field of which no held-out item has a value is left out.

        Args:
            part: the held-out items to ask about.
            on_start: is told the name of each row before it is made.
        """
        bundle = self._fitted()
        labels = tuple(Labels.of(bundle.prepared, column, self.settings.seed) for column in bundle.classes)
        seconds = self.progress.seconds
        return judge_classes(
            self.model, bundle.prepared, labels, part=part, fit_seconds=seconds, on_start=on_start
        )

    @property
    def items(self) -> Items:
        """The catalogue: its table, and new items."""
        return Items(self)

    # Keeping

    def save(self, folder: str | Path) -> None:
        """``folder`` holds the recommender; ``load`` gives it back with the same answers."""
        save_bundle(self._fitted(), Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The recommender that ``save`` or ``palate train`` left in ``folder``.

        Raises:
            BundleError: there is none, or it is incomplete, altered or of a newer format.
        """
        bundle = load_bundle(Path(folder))
        recommender = cls(bundle.settings)
        recommender.settings = bundle.settings
        recommender._adopt(bundle, _restore_model(bundle))
        return recommender

    # What the answers are made of

    def _fitted(self) -> Bundle:
        if self._bundle is None:
            raise NotFittedError(
                "This recommender has not been trained: call fit(dataset), or Recommender.load(folder)."
            )
        return self._bundle

    def _check_recommends(self) -> None:
        """Raises:
        SettingsError: no task learned from people.
        """
        if not self.settings.recommends:
            raise SettingsError(
                "This recommender was trained to classify items and nothing else (tasks: item_class), so it "
                "knows nobody's taste. Train with tasks=[next_item, item_class], or next_item with "
                "train.start_from naming this run."
            )

    def _class_place(self, field: str | None) -> int:
        """The place of the head that predicts this field."""
        names = [column.name for column in self._fitted().classes]
        if not names:
            raise SettingsError(
                "This recommender was not trained to classify items. Train with "
                "tasks=[next_item, item_class] or tasks=[item_class]."
            )
        if field is None and len(names) == 1:
            return 0
        if field not in names:
            what = "no field is named" if field is None else f"field is '{field}'"
            raise SettingsError(f"{what}; this recommender predicts {', '.join(names)}: name one of them.")
        return names.index(field)

    def _network(self) -> NetworkRanker:
        self._fitted()
        assert self._ranker is not None
        return self._ranker

    def _adopt(self, bundle: Bundle, model: TasteModel) -> None:
        model.eval()
        self._bundle, self._ranker = bundle, NetworkRanker(model)

    def _describe_items(self, prepared: Prepared, ids: IntArray, names: Collection[str]) -> None:
        """These data hold from now on; the item tower describes their items anew, these fields of these items
        from their texts, pictures, clips and tracks."""
        changed = replace(self._fitted(), prepared=prepared)
        model = _restore_model(changed, ids, names)
        self._adopt(replace(changed, weights=model.state_dict()), model)

    def _media_of(
        self, table: pl.DataFrame, media: Mapping[str, Media], folder: str | Path | None
    ) -> dict[str, Media]:
        """What is to be seen and heard of the items of the table, given or read from the files it names.

        Warns of files that cannot be used.
        """
        bundle = self._fitted()
        unread = table.drop(media.keys(), strict=False)
        where = Path(folder) if folder is not None else None
        read, notes = media_of_files(unread, bundle.content_encoder, where, bundle.settings.model)
        for note in notes:
            warnings.warn(f"{note.rule}: {note.detail}", stacklevel=4)
        return {**read, **media}

    def _remove_items(self, keys: Sequence[Key] | pl.Series) -> None:
        ids = self._ids(keys, "item", "error")
        self._bundle = replace(self._fitted(), prepared=remove_items(self.prepared, ids))

    def _ids(
        self, keys: Sequence[Key] | pl.Series, kind: Literal["item", "user"], unknown: Unknown
    ) -> IntArray:
        """Ids of the known keys.

        Raises:
            UnknownKeyError: some are not known and ``unknown`` is "error".
        """
        ids = (self.prepared.items if kind == "item" else self.prepared.people).ids(keys)
        missing = ids == UNKNOWN
        if missing.any() and unknown == "error":
            names = [repr(key) for key, gone in zip(keys, missing, strict=True) if gone]
            raise UnknownKeyError(
                f"{len(names):,} of {len(ids):,} {kind} keys are not in the data: {', '.join(names[:5])}"
                f"{', …' if len(names) > 5 else ''}. Check the spelling, or leave them out "
                "(unknown='skip', --skip-unknown)"
                + ("; who is new can be given by history." if kind == "user" else "; new ones can be added.")
            )
        known: IntArray = ids[~missing]
        return known

    def _histories_of(
        self,
        users: Sequence[Key] | pl.Series | None,
        histories: Sequence[Sequence[Key]] | None,
        unknown: Unknown,
    ) -> tuple[pl.Series, Histories]:
        """What each answer is called, and the history it is made from."""
        if (users is None) == (histories is None):
            raise SettingsError("Give either users or histories: whose recommendations are wanted?")
        if users is not None:
            ids = self._ids(users, "user", unknown)
            people = self.prepared.people
            names = pl.Series("user", people.keys(ids), dtype=people.series.dtype)
            return names, self.prepared.known().select(ids)
        rows = [self._ids(history, "item", unknown).tolist() for history in histories or ()]
        return pl.Series("user", np.arange(len(rows))), Histories.of(rows)

    def _why(
        self,
        items: Sequence[Key],
        user: Key | None,
        history: Sequence[Key] | None,
        at: datetime.datetime | str | None,
        event: str | None,
    ) -> tuple[Explained, Histories, IntArray]:
        """What explains, the history of the one person who is meant, and ids of the items."""
        self._check_recommends()
        users = None if user is None else [user]
        histories = None if history is None else [history]
        _, asked = self._histories_of(users, histories, "error")
        moment = self._moment(at) if at is not None else None
        code = self._event_code(event) if event is not None else None
        return self._explained(moment, code), asked, self._ids(list(dict.fromkeys(items)), "item", "error")

    def _explained(self, at: int | None, event: int | None) -> Explained:
        def parts(ids: IntArray) -> list[ItemPart]:
            with torch.inference_mode():
                found = self.model.items.contributions(torch.from_numpy(ids).to(self.model.items.warm.device))
            return [(name, vectors.float().cpu().numpy()) for name, vectors in found]

        prepared = self.prepared
        return Explained(self.scorer(at, event), ItemTitles(prepared).of, parts, prepared.schema)

    def _moment(self, at: datetime.datetime | str) -> int:
        """The time asked for, in microseconds since 1970.

        Raises:
            SettingsError: it is no time, or times mean nothing to this model.
        """
        if not isinstance(at, datetime.datetime):
            try:
                at = datetime.datetime.fromisoformat(at)
            except ValueError:
                raise SettingsError(
                    f"at is '{at}'; wanted a time in ISO 8601, for example 2011-12-01T10:00 (UTC) or "
                    "2011-12-01T10:00+01:00."
                ) from None
        if not self.prepared.schema.has_time:
            raise SettingsError(
                "at: these data have an order and no times, so nothing depends on when it is asked. Leave "
                "it out, or name a column of times and train again."
            )
        if QuestionPart.TIME not in self._network().question_parts:
            raise SettingsError(
                "at: this model was not trained to be asked for a time. Train with model.question_time=true"
                f"{'' if self.settings.model.time else ' and model.time=true'}, or leave it out."
            )
        return microseconds(at)

    def _event_code(self, event: str) -> int | None:
        """Code of the event type asked for; None where it is the only one that is predicted.

        Raises:
            SettingsError: there is no such type, it is not predicted, or the model cannot tell them apart.
        """
        schema = self.prepared.schema
        if event not in schema.events:
            raise SettingsError(
                f"event is '{event}', which is no event type of these data. "
                f"{did_you_mean(event, schema.target_events)}"
            )
        if event not in schema.target_events:
            raise SettingsError(
                f"event is '{event}', which is read but not predicted. Predicted: "
                f"{', '.join(schema.target_events)} (train.target_events)."
            )
        if len(schema.target_events) == 1:
            return None
        if QuestionPart.EVENT not in self._network().question_parts:
            raise SettingsError(
                "event: this model was not trained to be asked for an event type. Train with "
                "model.question_event=true, or leave it out."
            )
        return schema.events.index(event)

    def _allowed(
        self,
        items: Sequence[Key] | pl.Series | None,
        exclude: Sequence[Key] | pl.Series | None,
        unknown: Unknown,
    ) -> BoolArray:
        """Items that may be recommended, [V]."""
        prepared = self.prepared
        allowed = np.zeros(prepared.items.size, np.bool_)
        allowed[FIRST_ID:] = True
        if items is not None:
            wanted = np.zeros_like(allowed)
            wanted[self._ids(items, "item", unknown)] = True
            allowed &= wanted
        else:
            # Without training events and without content nothing is known of an item but its name.
            allowed &= prepared.warm | self.described()
        if exclude is not None:
            allowed[self._ids(exclude, "item", unknown)] = False
        allowed[prepared.removed] = False
        return allowed

    def may_be_recommended(self) -> BoolArray:
        """Items of which anything is known and that were not removed, [V]."""
        return self._allowed(None, None, "error")

    def described(self) -> BoolArray:
        """Items with at least one field that the network reads, [V]."""
        described: BoolArray = self.model.items.described.cpu().numpy()
        return described

    def _as_table(self, ids_RK: IntArray, scores_RV: np.ndarray, rows: IntArray) -> pl.DataFrame:
        """Long form of the top lists, without the places that could not be filled."""
        R, K = ids_RK.shape
        scores = np.take_along_axis(scores_RV, ids_RK.astype(np.int64), axis=1).ravel()
        table = pl.DataFrame(
            {
                "row": np.repeat(rows, K),
                "id": ids_RK.ravel(),
                "rank": np.tile(np.arange(1, K + 1), R),
                "score": scores,
            }
        )
        return table.filter(pl.Series(np.isfinite(scores)))


class Items:
    """The catalogue of a trained recommender."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    @property
    def table(self) -> pl.DataFrame:
        """Every item that may be recommended with its fields, one row each, in order of id."""
        prepared = self._recommender.prepared
        return prepared.catalogue.with_row_index("id").filter(self._present()).drop("id")

    def __len__(self) -> int:
        prepared = self._recommender.prepared
        return len(prepared.items) - len(prepared.removed)

    def _present(self) -> pl.Expr:
        removed = pl.Series(self._recommender.prepared.removed, dtype=pl.UInt32)
        return (pl.col("id") >= FIRST_ID) & ~pl.col("id").is_in(removed.implode())

    def add(
        self,
        table: pl.DataFrame | pd.DataFrame,
        *,
        media: Mapping[str, Media] = NO_MEDIA,
        media_folder: str | Path | None = None,
    ) -> int:
        """New items are known by their content and can be recommended at once; how many were added.

        An item that was removed comes back under its key, with its events and this description.

        Args:
            table: Polars or pandas, a column ``item`` with keys and any of the data set's fields. Fields
                that are absent or null cost nothing.
            media: by field, what is to be seen or heard of the items of the table, decoded.
            media_folder: where the paths of files in the table begin. Of files that cannot be used there is
                a warning, and their items are without.

        Raises:
            DataError: no column ``item``; a key that is null, known already or there twice; a column that is
                no field of this data; a cell that is not of its field's kind; media that do not fit; files
                without ``media_folder``.
        """
        everything = {field.name for field in self._recommender.prepared.schema.fields}
        return self._change(add_items, table, media, media_folder, everything)

    def update(
        self,
        table: pl.DataFrame | pd.DataFrame,
        *,
        media: Mapping[str, Media] = NO_MEDIA,
        media_folder: str | Path | None = None,
    ) -> int:
        """Known items are described anew, without training; how many.

        Args:
            table: as in ``add``, with keys that are known. Fields that the table does not have stay as they
                are; a null cell clears its field.
            media: as in ``add``.
            media_folder: as in ``add``.

        Raises:
            UnknownKeyError: a key is not known.
            DataError: as in ``add``.
        """
        return self._change(update_items, table, media, media_folder, {*table.columns, *media})

    def remove(self, keys: Sequence[Key] | pl.Series) -> int:
        """These items are recommended to nobody and similar to nothing any more; how many.

        Histories still hold them, and they still say what else a person may like. ``add`` brings them back.

        Raises:
            UnknownKeyError: a key is not known.
            DataError: a key is there twice, or removed already.
        """
        self._recommender._remove_items(keys)
        return len(keys)

    def _change(
        self,
        change: Callable[[Prepared, pl.DataFrame, Mapping[str, Media]], Prepared],
        table: pl.DataFrame | pd.DataFrame,
        media: Mapping[str, Media],
        media_folder: str | Path | None,
        names: Collection[str],
    ) -> int:
        """``names`` of the fields that the change says anew."""
        recommender = self._recommender
        given = table if isinstance(table, pl.DataFrame) else pl.from_pandas(table)
        shown = recommender._media_of(given, media, media_folder)
        prepared = change(recommender.prepared, given, shown)
        recommender._describe_items(prepared, prepared.items.ids(given["item"]), names)
        return given.height


def _reasons(rows: list[dict[str, Any]], keys: IdMap) -> pl.Series:
    """The column ``reasons``."""
    event = pl.Struct({"item": keys.series.dtype, "event": pl.String, "share": pl.Float64})
    field = pl.Struct({"field": pl.String, "share": pl.Float64})
    kind = {"events": pl.List(event), "fields": pl.List(field)}
    return pl.Series(
        "reasons", rows, dtype=pl.Struct({**kind, "difference": pl.Float64, "sentence": pl.String})
    )


_NOTHING = pl.DataFrame(schema={"row": pl.Int64, "id": pl.Int32, "rank": pl.Int64, "score": pl.Float32})


def _build_model(
    settings: Settings,
    prepared: Prepared,
    encoder: ContentEncoder,
    num_ids: int,
    classes: tuple[CategoryColumn, ...],
) -> TasteModel:
    return TasteModel(
        settings.model,
        encoder.encode(prepared.catalogue, prepared.media),
        prepared.warm,
        num_ids=num_ids,
        num_event_types=len(prepared.schema.events),
        has_time=prepared.schema.has_time,
        num_target_types=len(prepared.schema.target_events),
        classes=tuple(column.shape for column in classes),
    )


def _restore_model(bundle: Bundle, anew: IntArray | None = None, names: Collection[str] = ()) -> TasteModel:
    """The trained network; items that came after training have content but no id vector.

    Of the items ``anew`` the texts and media of the fields ``names`` are encoded again, or missing if there
    are none.
    """
    num_ids = len(bundle.weights["items.warm"])
    model = _build_model(bundle.settings, bundle.prepared, bundle.content_encoder, num_ids, bundle.classes)
    model.load_state_dict(bundle.weights)
    for column in model.items.kept if anew is not None else ():
        if column.shape.name in names:
            column.forget(torch.from_numpy(anew))
    model.items.encode_new()
    return model


def _run_identity(prepared: Prepared, settings: Settings) -> str:
    """Changes whenever the weights that training leads to might."""
    tree = settings.model_dump(mode="json", exclude={"evaluate": CHANGE_NO_WEIGHTS})
    tree["train"].pop("checkpoint_steps")
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    events = prepared.histories
    for column in (events.offsets, events.item, events.event, events.time, prepared.part):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _nearest(
    vectors: np.ndarray,
    ids: IntArray,
    keys: IdMap,
    name: str,
    k: int,
    removed: IntArray | None = None,
) -> pl.DataFrame:
    """The k nearest of all vectors but the removed ones to each asked one by cosine, itself left out."""
    if k < 1:
        raise SettingsError(f"k is {k}; wanted at least 1.")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scores = unit[ids] @ unit.T
    scores[:, :FIRST_ID] = -np.inf
    if removed is not None:
        scores[:, removed] = -np.inf
    scores[np.arange(len(ids)), ids] = -np.inf
    top = top_k(scores, min(k, len(vectors)))
    rows, places = np.nonzero(top >= FIRST_ID)
    found = top[rows, places]
    return pl.DataFrame(
        {
            "of": keys.keys(ids[rows]),
            name: keys.keys(found),
            "rank": places + 1,
            "score": scores[rows, found],
        }
    )
