"""From a trained recommender to the folder that ``palate.runtime`` answers from, checked on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from palate.data.manifest import checksums, write_json
from palate.data.store import replacing
from palate.data.store import save as save_prepared
from palate.errors import ExportError, SettingsError
from palate.evaluate.network import NetworkRanker
from palate.export.check import difference_of_field, difference_of_scores, difference_of_tower
from palate.export.graphs import OPSET, FieldGraph, HistoryGraph, TowerGraph, write_graph
from palate.nn.kept import KeptColumn
from palate.recommender import Recommender
from palate.runtime.model import (
    FORMAT,
    HISTORY,
    MANIFEST,
    TOWER,
    VECTORS,
    ServingModel,
    field_files,
    files_of,
)
from palate.schema import AnyArray
from palate.settings import write_yaml
from palate.version import __version__

MOST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """What an export has become."""

    folder: Path
    opset: int
    differences: dict[str, float]
    """The largest absolute difference from the network: of scores, of items' vectors, of each field's."""


def export_run(run: Path, folder: Path | None = None) -> Exported:
    """``folder``, by default RUN/serving, holds the recommender in the form that answers without PyTorch.

    What was there before is replaced as a whole, once the new one has been compared with the network on
    random histories of every length.

    Raises:
        BundleError: ``run`` holds no trained recommender, or ``folder`` something else than an export.
        SettingsError: the recommender was trained to classify items and nothing else.
        ExportError: part of the network cannot be written, or says something else than the network.
        MissingExtraError: onnxscript or ONNX Runtime is not installed.
    """
    recommender, folder = Recommender.load(run), folder or run / "serving"
    if not recommender.settings.recommends:
        raise SettingsError(
            "This recommender was trained to classify items and nothing else (tasks: item_class): it knows "
            "nobody's taste. Train with tasks=[next_item, item_class]."
        )
    model, content = recommender.model, recommender.content_encoder
    ranker, history, tower = NetworkRanker(model), HistoryGraph(model), TowerGraph(model.items)
    columns = {part.name: part.column for part in model.items.projections}
    fields = {column.name: FieldGraph(columns[column.name].encoder, column) for column in content.columns}
    with replacing(folder, MANIFEST, "an export") as writing:
        write_yaml(writing / "settings.yaml", recommender.settings)
        write_json(writing / "content.json", content.to_state())
        save_prepared(replace(recommender.prepared, media={}), writing / "data")
        save_file(tensors_of(ranker), writing / VECTORS)
        write_graph(history, writing / HISTORY)
        write_graph(tower, writing / TOWER)
        for name, path in field_files(content).items():
            write_graph(fields[name], writing / path)
        manifest = {"format": FORMAT, "palate": __version__, "opset": OPSET}
        manifest |= {"files": checksums(writing, files_of(content))}
        write_json(writing / MANIFEST, manifest)
        served, seed = ServingModel.load(writing), recommender.settings.seed
        differences = {
            "scores": difference_of_scores(served, ranker, seed),
            "items": difference_of_tower(served.items.tower, tower),
            **{
                f"field '{name}'": difference_of_field(served.items.fields[name], field, seed)
                for name, field in fields.items()
            },
        }
        for name, difference in differences.items():
            if not difference <= MOST_DIFFERENCE:  # also where it is no number
                raise ExportError(
                    f"The exported graph differs from the network by {difference:.2e} in {name}; at most "
                    f"{MOST_DIFFERENCE:.0e} was wanted. Nothing was written; please report it with the run's "
                    "settings.yaml."
                )
        write_json(writing / MANIFEST, manifest | {"differences": differences})
    return Exported(folder, OPSET, differences)


def tensors_of(ranker: NetworkRanker) -> dict[str, AnyArray]:
    """What ``palate.runtime.model`` says of ``vectors.safetensors``."""
    tower = ranker.model.items
    tensors = {
        "vectors": ranker.item_vectors(),
        "ids": tower.id.weight,
        "warm": tower.warm,
        "described": tower.described,
    }
    for part in tower.projections:
        if isinstance(part.column, KeptColumn):
            tensors |= {f"kept.{part.name}": part.column.vectors, f"present.{part.name}": part.column.present}
    return {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in tensors.items()}
