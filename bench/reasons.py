"""What reasons cost, and whether they are faithful.

    palate export runs/demo
    python -m bench.reasons runs/demo --people 500 --half 1 --cascade

Time: the reasons for ten items of random histories, without PyTorch, on as many threads as are asked for.
Faithfulness: what becomes of the first recommendation when past events are taken away, or put into an empty
history, in the order of their shares and in others (``palate.evaluate.faithful``). Cascade: how far the
shares still agree with the true ones when layer after layer is shuffled, from the output backwards (Adebayo
et al., 2018).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.runtime import microseconds, random_history
from palate.explain.answer import reasons
from palate.recommender import Recommender
from palate.run import faithfulness_of
from palate.runtime.model import ServingModel
from palate.schema import FIRST_ID

TEN = 10


def times(served: ServingModel, events: int, rounds: int) -> dict[str, float]:
    """Microseconds of the reasons for ten items."""
    generator = np.random.default_rng(0)
    histories = [random_history(served, events, generator) for _ in range(rounds)]
    items = generator.permutation(np.arange(FIRST_ID, served.prepared.items.size))[:TEN]
    return microseconds(lambda history: reasons(served, history, items), histories)


def layers_of(names: Iterable[str]) -> list[str]:
    """Layers from the output backwards, of the names of tensors from the input on."""
    found = [re.match(r"behaviour\.(\w+\.\d+|\w+)\.|\w+\.", name) for name in names]
    return list(dict.fromkeys(layer[0] for layer in reversed(found) if layer))


def cascade(recommender: Recommender, people: int, half: slice) -> dict[str, dict[str, float]]:
    """By layer, the agreement of the shares with those of the network shuffled from the output to there."""
    found, gone = {}, []
    for layer in layers_of(name for name, _ in recommender.model.named_parameters()):
        gone.append(layer)
        strange = recommender.shuffled(recommender.settings.seed, gone)
        told = faithfulness_of(recommender, people=people, among=half, shuffled=strange)
        found[layer.rstrip(".")] = told["agreement"]
    return found


def told_of(faithful: Mapping[str, Any]) -> list[str]:
    """The curves as lines."""
    lines = [f"agreement with shuffled weights: {faithful['agreement']}"]
    for by, kind in product(("by_number", "by_tenths"), ("deletion", "insertion")):
        lines.append(f"{kind}, {by}, {faithful['people']} people")
        for order, row in faithful[by][kind].items():
            said = f"  {order:<18} {row['area']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
            if test := row.get("difference"):
                said += (
                    f"  shares less this {test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
                )
            lines.append(said)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder with an export in it")
    parser.add_argument("--events", type=int, default=50, help="of each history that is timed")
    parser.add_argument("--rounds", type=int, default=100, help="histories that are timed; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--people", type=int, default=500, help="asked for faithfulness; 0 leaves it out")
    parser.add_argument("--half", type=int, choices=(0, 1), help="only every second person can be asked")
    parser.add_argument("--cascade", action="store_true", help="shuffle layer after layer")
    parser.add_argument("--cascade-people", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    half = slice(None) if asked.half is None else slice(asked.half, None, 2)
    found: dict[str, Any] = {"events": asked.events}
    if asked.rounds:
        served = ServingModel.load(asked.run / "serving", threads=asked.threads)
        found["ten reasons"] = times(served, asked.events, asked.rounds)
    if asked.people:
        found["faithfulness"] = faithfulness_of(Recommender.load(asked.run), people=asked.people, among=half)
    if asked.cascade:
        found["cascade"] = cascade(Recommender.load(asked.run), asked.cascade_people, half)
    if asked.json:
        print(json.dumps(found))
        return
    for name in ("ten reasons", "cascade"):
        print(f"{name}: {found.get(name)}")
    print("\n".join(told_of(found["faithfulness"]) if asked.people else ()))


if __name__ == "__main__":
    main()
