"""Text: counted nouns, which study names are allowed, and how passwords are masked."""

from __future__ import annotations

import re

from makemore.errors import UserError, one_line


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, for example "1 trial" or "1,200 trials"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def check_study_name(name: str) -> str:
    """Return the name if it can be a file name and a tag on every system.

    Raises:
        UserError: it cannot; the sentence states the rule.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        shown = name if len(name) <= 40 else name[:37] + "..."
        raise UserError(
            f"study name {shown!r} cannot be used; take 1 to 100 of the characters "
            "a-z A-Z 0-9 . _ - and begin with a letter or a digit."
        )
    return name


def without_password(url: str) -> str:
    """Return a URL, or a text with URLs, in which *** replaces each password and token."""
    # The password ends at the last @: it may contain an @ or a slash.
    url = re.sub(r"(://[^/@\s:]*):\S*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&](?:password|token|secret|sslpassword)=)[^&\s]*", r"\1***", url)


def reason(error: BaseException, limit: int = 200) -> str:
    """Return an error's message in one line, without passwords."""
    return without_password(one_line(error, limit=10_000))[:limit]


def with_psycopg(url: str) -> str:
    """Return a URL that names the driver of PostgreSQL that this project installs.

    SQLAlchemy's default is psycopg2.
    """
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
