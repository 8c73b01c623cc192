"""What makes a secret weak: too short, the same over and over, a row of signs, or known to all.

It tells what is certainly bad. A sentence that somebody can guess passes, so a secret is best made and not thought up.
"""

from __future__ import annotations

from itertools import pairwise

LEAST_SECRET_CHARS = 16
LEAST_SALT_CHARS = 8
MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'

_LEAST_DIFFERENT = {"secret": 5, "salt": 3}
_LEAST_STEPS = 4
_LEAST_BESIDE_WORDS = 9
_TRIED_FIRST = ("password", "secret", "changeme", "change-me", "default", "serving")
OF_EVERY_OLD_SERVER = ("secret", "salt")
"""The words that Cluster Serving took for the secret and the salt of records, in every installation."""


def weakness(secret: str, salt: str) -> str | None:
    """Say why nothing new is encrypted with a secret and its salt, or return None; repeat neither.

    A made secret of 16 hexadecimal digits is taken for a weak one in less than one case of a million.
    """
    reason = (
        _length(secret, "secret", LEAST_SECRET_CHARS)
        or _sameness("secret", secret)
        or _length(salt, "salt", LEAST_SALT_CHARS)
        or _sameness("salt", salt)
    )
    if reason is None and secret.strip().casefold() == salt.strip().casefold():
        reason = "secret and salt are the same, wanted are two that are made apart"
    return reason


def _length(text: str, what: str, least: int) -> str | None:
    # What surrounds it may come from an editor, and everybody guesses it.
    size = len(text.strip())
    return f"{what} has {size} characters, wanted are at least {least}" if size < least else None


def _sameness(what: str, text: str) -> str | None:
    text = text.strip().casefold()
    different, least = len(set(text)), _LEAST_DIFFERENT[what]
    if different < least:
        return f"{what} has {different} different characters, wanted are at least {least}"
    if what == "salt":  # it need not be hard to guess, only another one for each secret
        return None
    if period := _period(text):
        return f"secret is {period} characters over and over, wanted are {LEAST_SECRET_CHARS} that do not repeat"
    if len({ord(after) - ord(before) for before, after in pairwise(text)}) < _LEAST_STEPS:
        return "secret is a row of characters in their order, wanted are some that nobody can guess"
    beside = text
    for word in _TRIED_FIRST:
        beside = beside.replace(word, "")
    if len(beside) < min(_LEAST_BESIDE_WORDS, len(text)):
        return "secret is made of words that everybody tries first, wanted is one that nobody can guess"
    return None


def _period(text: str) -> int | None:
    """Return after how many characters a text begins again, where it does so before its half."""
    return next((size for size in range(1, len(text) // 2 + 1) if text.startswith(text[size:])), None)
