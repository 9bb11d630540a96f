"""How faithful reasons are, in numbers with intervals over people."""

from __future__ import annotations

from typing import Any

from palate.evaluate.significance import bootstrap_intervals, paired_test
from palate.explain.fidelity import LEVELS, SHARES, Fidelity


def faithfulness(found: Fidelity, *, resamples: int, confidence: float, seed: int) -> dict[str, Any]:
    """What the curves say: ``k``, ``people``, ``levels``, ``deletion`` and ``insertion``.

    The last two have, by order of the events, the ``curve``, the ``area`` under it from ``low`` to ``high``,
    and the paired ``difference``: order by shares − this one.

    Without anybody who has two events, ``deletion`` and ``insertion`` are empty.
    """
    people = len(found.deletion[SHARES])
    told: dict[str, Any] = {"k": found.k, "people": people, "levels": list(LEVELS)}
    for kind, curves in (("deletion", found.deletion), ("insertion", found.insertion)):
        told[kind] = {}
        for order in curves if people else ():
            area, ours = found.area(kind, order), found.area(kind, SHARES)
            ((low, high),) = bootstrap_intervals(
                area[:, None], resamples=resamples, confidence=confidence, seed=seed
            )
            row = {"curve": curves[order].mean(axis=0).tolist(), "area": float(area.mean())}
            row |= {"low": float(low), "high": float(high)}
            if order != SHARES:
                test = paired_test(area, ours, resamples=resamples, confidence=confidence, seed=seed)
                row["difference"] = test.to_json()
            told[kind][order] = row
    return told
