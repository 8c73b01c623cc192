"""How the place of Redis is written."""

from dataclasses import replace

import pytest

from beam_serving.transport.address import WANTED, Address, hash_tag, slot_of


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis-1", Address("server", (("redis-1", 6379),))),
        ("[::1]:7000", Address("server", (("::1", 7000),))),
        ("rediss://me:s%40%2F@redis-1/2", Address("server", (("redis-1", 6379),), True, "", 2, "me", "s@/")),
        (
            "redis+sentinel://a:1,b/digits/3",
            Address("sentinel", (("a", 1), ("b", 26379)), name="digits", db=3),
        ),
        ("rediss+sentinel://me@a/digits", Address("sentinel", (("a", 26379),), True, "digits", username="me")),
        ("redis+cluster://a:1,b", Address("cluster", (("a", 1), ("b", 6379)))),
        ("rediss+cluster://:pw@a/0", Address("cluster", (("a", 6379),), True, password="pw")),  # noqa: S106
    ],
)
def test_an_address_is_a_host_or_a_url(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(address.url()) == replace(address, password=None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://a", f"wants {WANTED}"),
        ("redis+other://a", f"wants {WANTED}"),
        ("redis://a,b", f"wants {WANTED}"),
        ("redis://a?db=1", f"wants {WANTED}"),
        ("redis+sentinel://a", f"wants {WANTED}"),
        ("redis+sentinel://a/digits/x", f"wants {WANTED}"),
        ("redis+cluster://", f"wants {WANTED}"),
        ("redis+cluster://a/1", "wants no database: a Redis Cluster has only number 0"),
        ("redis+cluster://a:99999", "wants host:port with a port from 0 to 65535"),
    ],
)
def test_another_text_is_answered_with_what_is_wanted(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="wants") as caught:
        Address.parse(text)
    assert str(caught.value) == said


def test_a_password_is_not_shown() -> None:
    assert "s3cret" not in repr(Address.parse("redis+sentinel://me:s3cret@a/digits"))


@pytest.mark.parametrize(
    ("key", "tag", "slot"),
    [
        (b"123456789", b"", 0x31C3),  # the value in the specification's reference for its CRC16
        (b"{123456789}:a", b"123456789", 0x31C3),
        (b"{}a", b"", None),
        (b"{a", b"", None),
        (b"x{a}{b}", b"a", 15495),
        (b"a", b"", 15495),
    ],
)
def test_a_key_goes_by_its_first_hash_tag(key: bytes, tag: bytes, slot: int | None) -> None:
    assert hash_tag(key) == tag
    assert slot is None or slot_of(key) == slot
