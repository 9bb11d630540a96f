"""What reasons cost, and whether they are faithful.

    palate export runs/demo
    python -m bench.reasons runs/demo --people 500

Time: the reasons for ten items of random histories, without PyTorch, on as many threads as are asked for.
Faithfulness: what becomes of the first recommendation when past events are taken away, or put into an empty
history, in the order of their shares and in others (``palate.evaluate.faithful``).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder with an export in it")
    parser.add_argument("--events", type=int, default=50, help="of each history that is timed")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--people", type=int, default=500, help="asked for faithfulness; 0 leaves it out")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    served = ServingModel.load(asked.run / "serving", threads=asked.threads)
    found = {"events": asked.events, "ten reasons": times(served, asked.events, asked.rounds)}
    if asked.people:
        found["faithfulness"] = faithfulness_of(Recommender.load(asked.run), people=asked.people)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"ten reasons, {asked.events} events: {found['ten reasons']} µs")
    for kind in ("deletion", "insertion") if asked.people else ():
        print(f"{kind}, {found['faithfulness']['people']} people")
        for order, row in found["faithfulness"][kind].items():
            said = f"  {order:<12} {row['area']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
            if test := row.get("difference"):
                said += (
                    f"  shares less this {test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
                )
            print(said)


if __name__ == "__main__":
    main()
