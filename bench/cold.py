"""How well things are found that nobody has met, and what each field of content is worth.

    python -m bench.cold --data examples/ml-1m/posters.yaml --set model.width=64 --seeds 0 1 2

A share of the items leaves training entirely (``split.kind: cold_items``) and is found by content alone.
The same network is trained with all fields, with each field alone, and with ids alone; beside them stand
the methods of ``evaluate.cold_baselines``. The split is that of the first seed for all; a person's value is
the mean over the seeds of training, and intervals are over people. Then the networks with all fields and
with ids alone are compared on the data set's own split, where the items are known. Writes both tables into
``docs/cold-start.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bench.page import machine, write_section
from palate.data.prepared import Prepared
from palate.data.source import read_dataset
from palate.data.store import prepare
from palate.evaluate.baselines import fit_baselines
from palate.evaluate.network import NetworkRanker
from palate.evaluate.protocol import Evaluation, evaluate
from palate.evaluate.segments import summary
from palate.evaluate.significance import compare
from palate.evaluate.wording import ranker_label
from palate.recommender import Recommender
from palate.schema import Among, FloatArray, Part
from palate.settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "cold-start.md"
ALL_FIELDS, IDS_ALONE = "Palate, all fields", "Palate, ids alone"
COLD_METRICS = ("recall@20", "ndcg@10")
NEW = (
    ("Recall@20, all items", "all", "recall@20"),
    ("Recall@20, new items only", "cold", "recall@20"),
    ("NDCG@10, all items", "all", "ndcg@10"),
)
"""Heading, items ranked and metric of each column where some items are new,"""
KNOWN = (("NDCG@10", "all", "ndcg@10"), ("Recall@20", "all", "recall@20"))
"""and where all are known."""


@dataclass(frozen=True)
class Row:
    """A method on the people of one split: per person, by the items ranked and the metric."""

    name: str
    values: dict[str, dict[str, FloatArray]]
    runs: tuple[dict[str, dict[str, float]], ...]
    """The means of each seed."""


def variants(prepared: Prepared, *, single: bool) -> Iterator[tuple[str, Prepared, bool]]:
    """Name, data and ``model.content`` of each network to train: fields are left out of the schema."""
    fields = prepared.schema.fields
    yield ALL_FIELDS, prepared, True
    if single and len(fields) > 1:
        for field in fields:
            alone = replace(prepared, schema=replace(prepared.schema, fields=(field,)))
            yield f"Palate, {field.name} alone", alone, True
    yield IDS_ALONE, prepared, False


def trained(prepared: Prepared, settings: Settings, content: bool, seed: int) -> Recommender:
    """A network trained on these data with this seed; the split stays."""
    tree = settings.model_dump(exclude_unset=True)
    given = Settings.build(tree, {"seed": seed, "model": {"content": content}})
    return Recommender(given).fit_prepared(prepared)


def row_of(name: str, judged: Sequence[dict[Among, Evaluation]]) -> Row:
    """The means over seeds."""
    groups = {
        str(among): {
            metric: np.mean([run[among].per_question[metric] for run in judged], axis=0)
            for metric in COLD_METRICS
        }
        for among in judged[0]
    }
    runs = tuple({str(among): found.means for among, found in run.items()} for run in judged)
    return Row(name, groups, runs)


def networks(
    prepared: Prepared, settings: Settings, seeds: Sequence[int], groups: Sequence[Among], *, single: bool
) -> Iterator[Row]:
    """A row for the network of all fields, of ids alone and, where ``single``, of each readable field."""
    for name, data, content in variants(prepared, single=single):
        judged = []
        for seed in seeds:
            print(f"{name}, seed {seed} …", flush=True)
            recommender = trained(data, settings, content, seed)
            if content and not recommender.model.items.has_content:
                print("  cannot be read, and is left out")
                break
            ranker = NetworkRanker(recommender.model)
            judged.append({among: judge(ranker, prepared, settings, among, seed) for among in groups})
        else:
            yield row_of(name, judged)


def judge(
    ranker: NetworkRanker, prepared: Prepared, settings: Settings, among: Among, seed: int
) -> Evaluation:
    judging = settings.evaluate
    questions = prepared.questions(
        Part.TEST, filter_seen=judging.filter_seen, cold_targets=judging.cold_targets, among=among
    )
    return evaluate(ranker, prepared, questions, settings=judging, among=among, seed=seed)


def others(prepared: Prepared, settings: Settings, seeds: Sequence[int]) -> list[Row]:
    """A row for each of ``evaluate.cold_baselines``; what does not suit the data is left out."""
    only = settings.evaluate.model_copy(update={"baselines": (), "references": ()})
    found: dict[str, list[dict[Among, Evaluation]]] = {}
    for seed in seeds:
        by_name: dict[str, dict[Among, Evaluation]] = {}
        for among in Among:
            for row in fit_baselines(prepared, only, seed, among=among):
                if isinstance(row, Evaluation):
                    by_name.setdefault(row.name, {})[among] = row
        for name, groups in by_name.items():
            found.setdefault(name, []).append(groups)
    return [row_of(ranker_label(name), judged) for name, judged in found.items()]


def table(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]], settings: Settings) -> str:
    """Markdown: columns (heading, items ranked, metric) with intervals, and the lead of the first row."""
    judging, first = settings.evaluate, rows[0]
    heads = [head for title, _, _ in columns for head in (title, f"{rows[0].name} − row")]
    lines = ["| method | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for row in rows:
        cells = []
        for _, among, metric in columns:
            values = {metric: row.values[among][metric]}
            means, bounds = summary(values, judging, 0)
            cells.append(f"{means[metric]:.4f} ({bounds[metric][0]:.4f}–{bounds[metric][1]:.4f})")
            if row is first:
                cells.append("–")
                continue
            test = compare(
                values, {metric: first.values[among][metric]}, [metric],
                resamples=judging.bootstrap, confidence=judging.confidence, seed=0,
            )[metric]  # fmt: skip
            cells.append(f"{test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f})")
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("cold", "warm"), help="one of the two tables")
    parser.add_argument("--json", type=Path, help="write the means of each seed to this file too")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write the tables into")
    arguments = parser.parse_args(given)
    dataset, seeds = read_dataset(arguments.data), arguments.seeds
    base = {"seed": seeds[0], "evaluate": {"cutoffs": [10, 20]}}
    own = Settings.build(base, dataset.settings, assignments=arguments.set)
    cold = Settings.build(own.model_dump(exclude_unset=True), {"split": {"kind": "cold_items"}})
    made = (
        f"{dataset.name}, {machine(own.train.threads or torch.get_num_threads())}. "
        f"Settings: {' '.join(arguments.set) or 'default'}; "
        f"seeds {', '.join(map(str, seeds))}."
    )
    results = {}
    if arguments.only != "warm":
        rows, words = of_new_items(prepare(dataset, cold), cold, seeds)
        results["cold"] = {row.name: row.runs for row in rows}
        write_section("cold", f"{made} {words}\n\n{table(rows, NEW, cold)}", arguments.page)
    if arguments.only != "cold":
        rows = list(networks(prepare(dataset, own), own, seeds, (Among.ALL,), single=False))
        results["warm"] = {row.name: row.runs for row in rows}
        words = f"{made} Split {own.split.kind}."
        write_section("warm", f"{words}\n\n{table(rows, KNOWN, own)}", arguments.page)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def of_new_items(prepared: Prepared, settings: Settings, seeds: Sequence[int]) -> tuple[list[Row], str]:
    """The networks and the other methods where some items are new, and who was asked about what."""
    rows = [
        *networks(prepared, settings, seeds, tuple(Among), single=True),
        *others(prepared, settings, seeds),
    ]
    new = prepared.candidates(cold_targets=True, among=Among.COLD)
    asked = prepared.questions(Part.TEST, filter_seen=settings.evaluate.filter_seen, cold_targets=True)
    items = f"{int(new.sum()):,} new items of {int(prepared.has_event.sum()):,}"
    return rows, f"{len(asked):,} people; {items}."


if __name__ == "__main__":
    main()
