"""How the server is set up, and who may ask it; both are read without loading a model."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from palate.errors import SettingsError
from palate.settings import Frozen, Positive, validated

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
VARIABLE = "PALATE_{}_KEY"


class ServeOptions(Frozen):
    """Everything but the run and the keys; as JSON it goes to the worker processes."""

    host: str = "127.0.0.1"
    """The address to listen on; every other than this machine's own wants a key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free one."""
    store: Annotated[str, Field(repr=False)] = "sqlite:///palate-events.db"
    """URL of the event store, which may hold a password."""
    workers: Positive = 1
    """Processes that answer; each loads the model."""
    rules: Path | None = None
    """A YAML file of rules for what may be shown."""
    beside: Path | None = None
    """A second run, which the page compares with the first."""
    threads: Positive = 1
    """Threads of each worker that compute one answer."""
    exact_up_to: Annotated[int, Field(ge=0)] | None = None
    """Items up to which all are compared; of more, lists of near ones. Measured if it is not given."""
    max_body_bytes: Positive = 20_000_000
    """Larger requests are refused."""
    request_seconds: Seconds = 10.0
    """A request that takes longer is answered with 503."""
    queue: Positive = 512
    """Requests that may wait for a list in each worker; more are answered with 503."""
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Requests per second and key, or per address where no key is sent, in each worker."""
    shutdown_seconds: Seconds = 30.0
    """How long requests that have begun may go on when the server is stopped."""
    json_logs: bool = False
    """One JSON object a line instead of plain text."""
    access_log: bool = False
    """One line per request."""

    @classmethod
    def of(cls, **given: object) -> Self:
        """Options from the command line.

        Raises:
            SettingsError: an impossible value, or several workers over a store that none of them shares.
        """
        options = validated(cls, given, "the options of serve")
        if options.workers > 1 and options.store in ("sqlite://", "sqlite:///:memory:"):
            raise SettingsError(
                f"{options.workers} workers cannot share a store in memory. Use a file: sqlite:///events.db."
            )
        return options


class Level(IntEnum):
    """What a key allows; each level allows what is below it too."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True)
class Keys:
    """The key of each level that has one. Shows nothing of them when printed."""

    read: str | None = field(default=None, repr=False)
    write: str | None = field(default=None, repr=False)
    admin: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given = [key for key in (self.read, self.write, self.admin) if key is not None]
        if any(not key.isascii() or not key.isprintable() or key != key.strip() or not key for key in given):
            raise SettingsError("A key has other characters than a header can carry; wanted printable ASCII.")
        if len(set(given)) < len(given):
            raise SettingsError("Two levels have the same key, so the weaker would open the stronger.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The keys in PALATE_READ_KEY, PALATE_WRITE_KEY and PALATE_ADMIN_KEY; an empty one is none.

        Raises:
            SettingsError: a key that no header can carry, or the same for two levels.
        """
        given = os.environ if environment is None else environment
        return cls(
            **{each.name: given.get(VARIABLE.format(each.name.upper())) or None for each in fields(cls)}
        )

    @property
    def wanted(self) -> bool:
        """Whether any is set, so that one has to be sent."""
        return any((self.read, self.write, self.admin))

    def level_of(self, sent: str) -> Level | None:
        """What this key allows; None for a key that is none of ours. Takes as long for every key."""
        found = None
        for level in Level:
            key = getattr(self, level.name.lower()) or ""
            same = hmac.compare_digest(sent.encode(), key.encode())
            found = level if same and key else found
        return found


def check_bind(options: ServeOptions, keys: Keys) -> None:
    """Nothing is opened to a network without a key.

    Raises:
        SettingsError: the address is not this machine's own, and no key is set.
    """
    if not keys.wanted and not is_loopback(options.host):
        raise SettingsError(
            f"Listening on {options.host} lets others in, and no key is set. Set PALATE_READ_KEY, "
            "PALATE_WRITE_KEY and PALATE_ADMIN_KEY, or listen on 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"
