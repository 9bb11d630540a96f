"""Databases by URL: SQLAlchemy's engines, and errors that name no password."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from palate.errors import DataError, MissingExtraError, first_line


def database_url(text: str) -> URL:
    """The URL with ``${NAME}`` from the environment; a password may hold any character.

    Raises:
        DataError: it is no URL, or names an environment variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"])
        if found is None:
            raise DataError(
                f"The database's URL asks for the environment variable {match['name']}, which is not set."
            )
        in_password = text[: match.start()].endswith(":") and text[match.end() :].startswith("@")
        return quote(found, safe="") if in_password else found

    try:
        url = make_url(re.sub(r"\$\{(?P<name>\w+)\}", value, text))
    except (ArgumentError, ValueError):  # the text is not shown: it may hold a password
        raise DataError(
            "The database's URL is not one of SQLAlchemy's; wanted, for example, "
            "postgresql://user:${PASSWORD}@host/database or sqlite:///shop.db."
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    return url


def open_engine(url: URL, **options: Any) -> Engine:
    """An engine for the database; nothing is connected yet.

    Raises:
        MissingExtraError: PostgreSQL's driver is not installed.
        DataError: no driver for this kind of database is.
    """
    try:
        return create_engine(url, **options)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        if url.get_backend_name() == "postgresql":
            raise MissingExtraError("psycopg", "postgresql") from None
        raise DataError(
            f"No driver for {url.drivername} databases is installed: {first_line(error)}."
        ) from None


def shown(url: URL) -> str:
    """The URL without its password and without its query, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def reason(error: BaseException, url: URL) -> str:
    """The first line of what the database answered, without the passwords of the URL."""
    text = first_line(getattr(error, "orig", None) or error)
    secrets = [url.password, *(value for name, value in url.query.items() if "password" in name)]
    for secret in secrets:
        if secret:
            text = text.replace(str(secret), "***")
    return text
