"""Which secrets are weak, and that no made one is."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.encryption.strength import LEAST_SALT_CHARS, LEAST_SECRET_CHARS, weakness

GOOD, SALT = "7hJ2-kQ9_xV4bN8mW1", "b1946ac92492d234"
SHORT = "wanted are at least"


@pytest.mark.parametrize(
    ("secret", "salt", "said"),
    [
        ("secret", "salt", f"secret has 6 characters, {SHORT} 16"),
        ("", SALT, f"secret has 0 characters, {SHORT} 16"),
        ("short" + " " * 20, SALT, f"secret has 5 characters, {SHORT} 16"),
        (GOOD, "salt", f"salt has 4 characters, {SHORT} 8"),
        (GOOD, "salt      ", f"salt has 4 characters, {SHORT} 8"),
        ("a" * 64, SALT, f"secret has 1 different characters, {SHORT} 5"),
        ("aA" * 20, SALT, f"secret has 1 different characters, {SHORT} 5"),
        ("1234" * 4, SALT, f"secret has 4 different characters, {SHORT} 5"),
        (GOOD, "0" * 32, f"salt has 1 different characters, {SHORT} 3"),
        ("changeme" * 2, SALT, "secret is 8 characters over and over, wanted are 16 that do not repeat"),
        ("Tr0ub4d" * 3 + "Tr0", SALT, "secret is 7 characters over and over, wanted are 16 that do not repeat"),
        ("abcdefghijklmnopqrstuvwxyz", SALT, "secret is a row of characters in their order"),
        ("0123456789abcdef", SALT, "secret is a row of characters in their order"),
        ("1234567890123456", SALT, "secret is a row of characters in their order"),
        ("zyxwvutsrqponmlkj", SALT, "secret is a row of characters in their order"),
        ("password12345678", SALT, "secret is made of words that everybody tries first"),
        ("my-secret-PassWord", SALT, "secret is made of words that everybody tries first"),
        ("cluster-serving-secret"[8:], SALT, f"secret has 14 characters, {SHORT} 16"),
        (GOOD, GOOD, "secret and salt are the same, wanted are two that are made apart"),
        (GOOD, f" {GOOD.upper()} ", "secret and salt are the same, wanted are two that are made apart"),
    ],
)
def test_a_weak_secret_is_told_and_not_repeated(secret: str, salt: str, said: str) -> None:
    reason = weakness(secret, salt)
    assert reason is not None
    assert reason.startswith(said)
    assert secret in ("", "secret") or secret not in reason


@pytest.mark.parametrize(
    "secret",
    [GOOD, "a secret of the tests", "the secret of the model", "aus der Datei: ä und ö", "пароль из файла и ещё"],
)
def test_others_are_not(secret: str) -> None:
    assert weakness(secret, "its salt") is None


@given(st.integers(LEAST_SECRET_CHARS, 64), st.integers(LEAST_SALT_CHARS, 64))
def test_no_made_secret_is_weak(secret_chars: int, salt_chars: int) -> None:
    secret = secrets.token_urlsafe(secret_chars)[:secret_chars].replace("-", "x")
    assert weakness(secret, secrets.token_urlsafe(salt_chars)[:salt_chars]) in (
        None,
        # One of a thousand million, and a test must not depend on it.
        f"salt has 2 different characters, {SHORT} 3",
    )


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_gets_an_answer(secret: str, salt: str) -> None:
    reason = weakness(secret, salt)
    assert reason is None or reason.startswith(("secret ", "salt "))


@given(st.text(alphabet="abcdefgh1234", min_size=1, max_size=12), st.integers(2, 20))
def test_whatever_is_repeated_is_weak(unit: str, times: int) -> None:
    assert weakness(unit * times, SALT) is not None
