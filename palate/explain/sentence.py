"""A sentence that a shopper understands, in English or Chinese, which claims no more than the shares say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from palate.errors import SettingsError

LANGUAGES = ("en", "zh")
MOST_NAMED = 3
LEAST_OF_LARGEST = 0.5
"""An item is named where its share is at least this part of the largest one."""
MOSTLY = 0.5
"""Where the items named carry less than this part of all that speaks for it, it is called a part."""
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
    """``looks`` or ``sounds``."""
    name: str


ALIKE = {
    "looks": ("looks like {}", "看起来像{}"),
    "sounds": ("sounds like {}", "听起来像{}"),
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

    Named are at most three items, those with the largest shares. Where they carry less than half of what
    speaks for it, the sentence begins with "partly"; where the history as a whole says nothing for it, the
    sentence says that.

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
    speaking = sorted((cause for cause in causes if cause.share > 0), key=lambda cause: -cause.share)
    if not speaking or difference <= 0:
        return "并非因为你的历史行为" if chinese else "not because of what you did before"
    named = [cause for cause in speaking[:MOST_NAMED] if cause.share >= LEAST_OF_LARGEST * speaking[0].share]
    partly = sum(cause.share for cause in named) < MOSTLY * sum(cause.share for cause in speaking)
    by_verb: dict[Verb, list[str]] = {}
    for cause in named:
        by_verb.setdefault(verb_of(cause.event), []).append(quoted(cause.name, chinese))
    if chinese:
        clauses = [verb.chinese.format("、".join(names)) for verb, names in by_verb.items()]
        said = f"{'部分' if partly else ''}因为你{'，'.join(clauses)}"
    else:
        clauses = [verb.english.format(_listed(names)) for verb, names in by_verb.items()]
        said = f"{'partly ' if partly else ''}because you {' and '.join(clauses)}"
    if alike is None:
        return said
    like = ALIKE[alike.how][chinese].format(quoted(alike.name, chinese))
    return f"{said}；{like}" if chinese else f"{said}; {like}"


def verb_of(event: str) -> Verb:
    """How to speak of an event type."""
    plain = event.lower().replace("-", "_").replace(" ", "_")
    return next((verb for verb in VERBS if plain in verb.events), OTHERWISE)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def quoted(name: str, chinese: bool) -> str:
    """The name in quotation marks, shortened where it is long."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"
    return f"「{short}」" if chinese else f"“{short}”"
