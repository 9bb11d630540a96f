"""A trained recommender that answers without PyTorch, from the folder that ``palate export`` wrote.

FOLDER/serving.json         format, versions, what the check found, and size and SHA-256 of every other file
FOLDER/settings.yaml        the settings of the run
FOLDER/content.json         what the content encoder learned
FOLDER/history.onnx         from the events of histories to their states (``HISTORY``)
FOLDER/tower.onnx           from an id vector and the fields' vectors to an item's vector
FOLDER/fields/FIELD.onnx    from a field's values to its vectors, one for each field that is read
FOLDER/vectors.safetensors  vectors [V, D] of all items, ids [rows, D] and warm [rows] of the id table,
                            described [V]; of a field that is kept, kept.FIELD [V, width], present.FIELD [V]
FOLDER/data/                the prepared data without pictures, clips and tracks (``palate.data.store``)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from palate.data.batches import condition_of, make_batch
from palate.data.content import NO_MEDIA, ContentEncoder
from palate.data.manifest import check_files, read_json
from palate.data.media import file_name, media_of_bytes
from palate.data.past import past_of
from palate.data.prepared import Prepared
from palate.data.store import load_prepared, mapped_columns
from palate.errors import BundleError, DataError, did_you_mean
from palate.runtime.graph import Graph
from palate.runtime.items import ItemEncoder, Vectors
from palate.schema import (
    FIRST_ID,
    MEDIA,
    NEVER,
    BoolArray,
    Condition,
    Histories,
    IntArray,
    Media,
    Questions,
)
from palate.settings import Settings, read_yaml
from palate.version import __version__

FORMAT = 1
MANIFEST = "serving.json"
REMEDY = "export again: palate export RUN"
HISTORY, TOWER, VECTORS = "history.onnx", "tower.onnx", "vectors.safetensors"
EVENTS_AT_A_TIME = 16_384


class Bonuses(NamedTuple):
    """What is added to the scores of a few items of each history, as ragged lists.

    Those of history b are ``item[offsets[b]:offsets[b + 1]]``, each item once.
    """

    offsets: IntArray  # int64 [B + 1]
    item: IntArray  # int64 [S], item ids
    value: Vectors  # float32 [S]

    @classmethod
    def none(cls, rows: int) -> Self:
        """Nothing is added for any of so many histories."""
        return cls(np.zeros(rows + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    def of(self, row: int) -> tuple[IntArray, Vectors]:
        """The ids and values of one history."""
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return self.item[part], self.value[part]


class Answer(NamedTuple):
    """What is known of B people: scores are ``states @ vectors.T`` plus the bonuses."""

    states: Vectors  # float32 [B, D]
    bonuses: Bonuses

    def scores(self, vectors: Vectors) -> Vectors:
        """Of every item of a table [V, D], float32 [B, V]."""
        found: Vectors = self.states @ vectors.T
        rows = np.repeat(np.arange(len(found)), np.diff(self.bonuses.offsets))
        found[rows, self.bonuses.item] += self.bonuses.value
        return found


@dataclass(frozen=True)
class ServingModel:
    """A trained recommender as arrays and graphs. Nothing in it changes; many threads may ask it at once."""

    prepared: Prepared
    """The data that it was trained on, without pictures, clips and tracks."""
    settings: Settings
    vectors: Vectors
    """float32 [V, D] of every item, mapped to the file."""
    allowed: BoolArray
    """bool [V]: what may be recommended, because training met it or its content says something, and it was
    not removed."""
    history: Graph
    items: ItemEncoder

    @classmethod
    def load(cls, folder: str | Path, *, threads: int = 1) -> Self:
        """The recommender in a folder that ``palate export`` wrote, every file compared with its checksum.

        Args:
            threads: that work on one call.

        Raises:
            BundleError: there is none, or it is incomplete, altered, damaged or of another format.
            MissingExtraError: ONNX Runtime is not installed.
        """
        folder = Path(folder)
        manifest = read_json(folder / MANIFEST, what="exported recommender", remedy=REMEDY)
        if manifest.get("format") != FORMAT:
            raise BundleError(
                f"{folder} has serving format {manifest.get('format')}, by Palate {manifest.get('palate')}; "
                f"this is Palate {__version__}, which reads format {FORMAT}. Export the run again with it."
            )
        content = ContentEncoder.from_state(
            read_json(folder / "content.json", what="exported recommender", remedy=REMEDY)
        )
        check_files(folder, files_of(content), manifest, remedy=REMEDY)
        prepared, tensors = load_prepared(folder / "data"), mapped_columns(folder / VECTORS)
        allowed = prepared.warm | tensors["described"]
        allowed[:FIRST_ID] = False
        allowed[prepared.removed] = False
        graphs = {name: Graph(folder / path, threads) for name, path in field_files(content).items()}
        return cls(
            prepared=prepared,
            settings=Settings.build(read_yaml(folder / "settings.yaml")),
            vectors=tensors["vectors"],
            allowed=allowed,
            history=Graph(folder / HISTORY, threads),
            items=ItemEncoder(prepared, content, graphs, Graph(folder / TOWER, threads), tensors),
        )

    @property
    def filter_seen(self) -> bool:
        """Whether what a person met before is left out, unless the caller says otherwise."""
        return self.settings.evaluate.filter_seen

    @property
    def has_time(self) -> bool:
        """Whether times of events are read."""
        return self.prepared.schema.has_time and self.settings.model.time

    # People

    def states(
        self,
        histories: Histories,
        at: int | None = None,
        event: int | None = None,
        *,
        vectors: Vectors | None = None,
    ) -> Answer:
        """What is known of the people with these histories after their last event; a history may be empty.

        Args:
            histories: item ids, event codes and times; everything that is known, the model reads the latest.
            at: the time asked for, in microseconds since 1970; heard where the model was trained for it.
            event: the code of the event type asked for, likewise.
            vectors: the table that item ids are rows of, by default ``vectors``; items that came later lie
                behind.
        """
        table = self.vectors if vectors is None else vectors
        asked = Questions.without_answer(histories, at, event)
        answers = [self._answer(part, table) for part in in_chunks(asked)]
        if len(answers) == 1:
            return answers[0]
        counts = np.concatenate([np.diff(answer.bonuses.offsets) for answer in answers])
        bonuses = Bonuses(
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([answer.bonuses.item for answer in answers]),
            np.concatenate([answer.bonuses.value for answer in answers]),
        )
        return Answer(np.concatenate([answer.states for answer in answers]), bonuses)

    def _answer(self, asked: Questions, table: Vectors) -> Answer:
        histories, settings, B = asked.histories, self.settings.model, len(asked)
        batch = make_batch(histories, max_history=settings.max_history, has_time=self.has_time)
        condition = condition_of(asked) or Condition(*np.zeros((4, B), np.int64))
        known = {"vectors": table[batch.item], "position": batch.position, "last": batch.last}
        known |= {"event": batch.event, "gap": batch.gap, "hour": batch.hour, "weekday": batch.weekday}
        known |= {f"asked_{name}": numbers for name, numbers in condition._asdict().items()}
        if settings.again == "ignored":
            return Answer(self.history(**known)[0], Bonuses.none(B))
        past = past_of(histories, np.arange(B), histories.lengths, has_time=self.has_time)
        if settings.again == "never":
            value = np.full(len(past.item), NEVER, np.float32)
            return Answer(self.history(**known)[0], Bonuses(past.offsets, past.item, value))
        known |= {
            "past_row": np.repeat(np.arange(B), np.diff(past.offsets)),
            "past_vectors": table[past.item],
        }
        known |= {"past_lag": past.lag, "past_times": past.times, "past_since": past.since}
        states, value = self.history(**known)
        return Answer(states, Bonuses(past.offsets, past.item, value))

    # Items

    def encode_items(self, table: pl.DataFrame, media: Mapping[str, Media] = NO_MEDIA) -> Vectors:
        """The vectors of the items that the table describes, float32 [rows, D].

        A new key gets what ``Recommender.items.add`` would give it, and a known one what ``items.update``
        would: fields that the table does not have stay as they are, a null cell clears its field, and
        pictures, clips and tracks of a field that the table names are those of ``media`` or none. A key that
        was removed is described by the table alone.

        Args:
            table: a column ``item`` with keys and any of the fields.
            media: by field, what is to be seen or heard of the items of ``table``, row by row.

        Raises:
            DataError: the table or the media cannot be used; the message says why.
        """
        return self.items.vectors(self.items.described(table, media))

    def media_of(self, uploads: Mapping[str, Sequence[Sequence[bytes]]]) -> dict[str, Media]:
        """What files show that come as bytes, for ``encode_items``; their bytes tell the format.

        Args:
            uploads: by field, of each item of the table the contents of one file, several or none.

        Raises:
            DataError: no such field of pictures, clips or tracks, or a file that cannot be used.
            MissingExtraError: a library that decodes sound or film is not installed.
        """
        kinds = {field.name: field.kind for field in self.prepared.schema.fields if field.kind in MEDIA}
        for name in uploads:
            if name not in kinds:
                raise DataError(
                    f"'{name}' is no field of pictures, clips or tracks. {did_you_mean(name, kinds)}"
                )
        return {
            name: media_of_bytes(contents, kinds[name], self.settings.model, name=name)
            for name, contents in uploads.items()
        }

    def may_be_recommended(self, table: pl.DataFrame, media: Mapping[str, Media] = NO_MEDIA) -> BoolArray:
        """Of the items that ``encode_items`` is given, those that training met or of which any field says
        something, bool [rows].

        Raises:
            DataError: as ``encode_items``.
        """
        found = self.items.described(table, media)
        told = self.prepared.warm[found.ids]  # of new keys, false
        for present in found.present:
            told |= present
        return told


def in_chunks(asked: Questions) -> list[Questions]:
    """The questions, so many at a time that one pass of the network does not take much memory."""
    events = len(asked.histories.item) + len(asked)
    if events <= EVENTS_AT_A_TIME:
        return [asked]
    return list(asked.chunks(max(1, len(asked) * EVENTS_AT_A_TIME // events)))


def field_files(content: ContentEncoder) -> dict[str, str]:
    """By field that is read, the file of its encoder."""
    return {column.name: f"fields/{file_name(column.name)}.onnx" for column in content.columns}


def files_of(content: ContentEncoder) -> tuple[str, ...]:
    """All files of an export but its manifest; the manifest of ``data`` vouches for what is in there."""
    plain = ("settings.yaml", "content.json", HISTORY, TOWER, VECTORS, "data/manifest.json")
    return (*plain, *field_files(content).values())
