"""How faithful reasons are, in numbers with intervals over people."""

from __future__ import annotations

from typing import Any

from palate.evaluate.significance import bootstrap_intervals, paired_test
from palate.explain.fidelity import SHARES, Curves, Fidelity


def faithfulness(found: Fidelity, *, resamples: int, confidence: float, seed: int) -> dict[str, Any]:
    """What the curves say: ``k``, ``people``, ``agreement``, and under ``by_number`` and ``by_tenths``
    ``levels``, ``deletion`` and ``insertion``.

    The last two have, by order of the events, the ``curve``, the ``area`` under it from ``low`` to ``high``,
    and the paired ``difference``: order by shares − this one. ``agreement`` is the mean rank correlation of
    the shares with those of the shuffled network, a ``value`` from ``low`` to ``high``.

    Without anybody who has two events, ``deletion`` and ``insertion`` are empty and there is no agreement.
    """
    how: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    people = len(found.by_number.deletion[SHARES])
    told: dict[str, Any] = {"k": found.k, "people": people}
    if found.agreement is not None and people:
        ((low, high),) = bootstrap_intervals(found.agreement[:, None], **how)
        told["agreement"] = {"value": float(found.agreement.mean()), "low": float(low), "high": float(high)}
    return told | {
        "by_number": _of_curves(found.by_number, people, how),
        "by_tenths": _of_curves(found.by_tenths, people, how),
    }


def _of_curves(found: Curves, people: int, how: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"levels": list(found.levels)}
    for kind, curves in (("deletion", found.deletion), ("insertion", found.insertion)):
        told[kind] = {}
        for order in curves if people else ():
            area, ours = found.area(kind, order), found.area(kind, SHARES)
            ((low, high),) = bootstrap_intervals(area[:, None], **how)
            row = {"curve": curves[order].mean(axis=0).tolist(), "area": float(area.mean())}
            row |= {"low": float(low), "high": float(high)}
            if order != SHARES:
                row["difference"] = paired_test(area, ours, **how).to_json()
            told[kind][order] = row
    return told
