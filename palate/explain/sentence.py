"""A sentence that a shopper understands, in English or Chinese, which claims no more than the shares say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from palate.errors import SettingsError

LANGUAGES = ("en", "zh")
NAMED_SHARE = 0.15
"""An item is named where it carries at least this share of all that speaks for the recommendation."""
MOST_NAMED = 3
LONGEST_NAME = 60


class Verb(NamedTuple):
    """How to speak of a type of event."""

    events: tuple[str, ...]
    """Names of the type."""
    english: str
    chinese: str


VERBS = (
    Verb(("purchase", "buy", "order", "transaction", "sale"), "bought {}", "购买了{}"),
    Verb(("cart", "addtocart", "add_to_cart", "basket"), "put {} in your basket", "加购了{}"),
    Verb(("favourite", "favorite", "fav", "save", "bookmark", "wishlist"), "saved {}", "收藏了{}"),
    Verb(("like",), "liked {}", "喜欢{}"),
    Verb(("view", "click", "visit", "pv", "detail"), "looked at {}", "浏览了{}"),
    Verb(("watch",), "watched {}", "观看了{}"),
    Verb(("listen", "play"), "listened to {}", "听了{}"),
    Verb(("rating", "rate"), "rated {}", "评价了{}"),
    Verb(("return", "refund"), "sent {} back", "退回了{}"),
)
OTHERWISE = Verb((), "chose {}", "选择了{}")
"""How to speak of event types with other names."""


class Resemblance(NamedTuple):
    """What the item has in common with something in the history."""

    how: str
    """``looks``, ``sounds`` or ``reads``."""
    name: str


ALIKE = {
    "looks": ("looks like {}", "看起来像{}"),
    "sounds": ("sounds like {}", "听起来像{}"),
    "reads": ("is described like {}", "描述与{}相近"),
}


@dataclass(frozen=True)
class Cause:
    """What one item of the history carried."""

    name: str
    event: str
    """The event type that carried most of it."""
    share: float
    """Above zero where it speaks for the recommendation."""


def sentence(
    causes: Sequence[Cause], difference: float, language: str, alike: Resemblance | None = None
) -> str:
    """Why something is recommended.

    Named are at most three items that carry at least a seventh of what speaks for it; where the history as
    a whole says nothing for it, the sentence says that.

    Args:
        causes: of each item of the history, its share.
        difference: score with the history less score with none.
        language: ``en`` or ``zh``.
        alike: said in addition, where the item's own fields show it.

    Raises:
        SettingsError: another language.
    """
    if language not in LANGUAGES:
        raise SettingsError(f"language is '{language}'; wanted one of {', '.join(LANGUAGES)}.")
    chinese = language == "zh"
    total = sum(cause.share for cause in causes if cause.share > 0)
    named = [
        cause
        for cause in sorted(causes, key=lambda cause: -cause.share)[:MOST_NAMED]
        if cause.share > 0 and cause.share >= NAMED_SHARE * total
    ]
    if not causes or difference <= 0:
        return "并非因为你的历史行为" if chinese else "not because of what you did before"
    if not named:
        return (
            "因为你的许多历史行为，每一项影响都很小"
            if chinese
            else "because of many things that you did, each a little"
        )
    by_verb: dict[Verb, list[str]] = {}
    for cause in named:
        by_verb.setdefault(verb_of(cause.event), []).append(quoted(cause.name, chinese))
    clauses = [
        (verb.chinese if chinese else verb.english).format(("、" if chinese else " and ").join(names))
        for verb, names in by_verb.items()
    ]
    said = "因为你" + "，".join(clauses) if chinese else "because you " + " and ".join(clauses)
    if alike is None:
        return said
    like = ALIKE[alike.how][chinese].format(quoted(alike.name, chinese))
    return f"{said}；{like}" if chinese else f"{said}; {like}"


def verb_of(event: str) -> Verb:
    """How to speak of an event type."""
    plain = event.lower().replace("-", "_").replace(" ", "_")
    return next((verb for verb in VERBS if plain in verb.events), OTHERWISE)


def quoted(name: str, chinese: bool) -> str:
    """The name in quotation marks, shortened where it is long."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"
    return f"「{short}」" if chinese else f"“{short}”"
