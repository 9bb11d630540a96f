"""How a service is set up: what the command line says, and the keys that only the environment says."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from palate.errors import SettingsError


class ServeOptions(BaseModel):
    """Everything about a service but its keys. Written as JSON, it reaches every worker process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    """0: any that is free."""
    store: str = Field("sqlite:///palate-events.db", repr=False)
    """The URL of the event store, which may hold a password."""
    workers: int = Field(1, ge=1, le=256)
    rules: Path | None = None
    beside: Path | None = None
    """A second run to compare the first with."""
    threads: int = Field(1, ge=1, le=256)
    """That work on one pass of the network."""
    queue: int = Field(512, ge=1)
    """Requests of one process that may wait for the model; further ones are told to come again."""
    max_body_bytes: int = Field(20_000_000, ge=1)
    request_seconds: float = Field(10.0, gt=0, allow_inf_nan=False)
    rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Requests a second that one key may send, over all workers together."""
    stop_seconds: int = Field(30, ge=1)
    """That requests have to finish in when the service is told to stop."""
    json_logs: bool = False
    access_log: bool = False


class Level(IntEnum):
    """What a key may do; each level may do what those before it may."""

    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def variable(self) -> str:
        """The environment variable with its key."""
        return f"PALATE_{self.name}_KEY"


@dataclass(frozen=True)
class Keys:
    """The keys of a service, as digests; without any, whoever reaches the service may do everything."""

    digests: Mapping[Level, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, **keys: str) -> Self:
        """The keys by the words of their levels: ``Keys.of(read="…", admin="…")``."""
        return cls({Level[word.upper()]: _digest(key) for word, key in keys.items()})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The keys in ``PALATE_READ_KEY``, ``PALATE_WRITE_KEY`` and ``PALATE_ADMIN_KEY``.

        Raises:
            SettingsError: a variable is there and holds nothing, or what no header can carry.
        """
        given = {level.word: environment[level.variable] for level in Level if level.variable in environment}
        for word, key in given.items():
            name = Level[word.upper()].variable
            if not key:
                raise SettingsError(f"{name} is empty. Give it a key, or unset it.")
            if not key.isascii() or not key.isprintable() or key != key.strip():
                raise SettingsError(
                    f"{name} holds a character that a header cannot carry; wanted letters and digits."
                )
        return cls.of(**given)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def level_of(self, key: str) -> Level | None:
        """The highest level that the key is for. How long this takes does not hang on the key's value."""
        digest = _digest(key)
        fitting = [level for level, known in self.digests.items() if hmac.compare_digest(known, digest)]
        return max(fitting, default=None)


def is_loopback(host: str) -> bool:
    """Whether it names this machine for this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(options: ServeOptions, keys: Keys) -> None:
    """Nothing happens where the service may listen.

    Raises:
        SettingsError: others could reach it, and there is no key.
    """
    if not is_loopback(options.host) and not keys:
        names = ", ".join(level.variable for level in Level)
        raise SettingsError(
            f"--host {options.host} can be reached from other machines, and there is no key. "
            f"Set {names} in the environment, or leave --host at 127.0.0.1."
        )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
