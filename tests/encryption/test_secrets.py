"""Where secrets come from, and that they are never repeated."""

from pathlib import Path

import pytest

from beam_serving.encryption.secrets import MODEL, RECORDS, Place, Secret
from beam_serving.errors import ConfigError

WHERE = "set BEAM_SERVING_MODEL_SECRET and BEAM_SERVING_MODEL_SALT, or model: secret_file to a file of two lines"


@pytest.mark.parametrize("place", [MODEL, RECORDS])
def test_a_secret_comes_from_the_environment_or_a_file(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(place.secret_variable, "from the environment")
    monkeypatch.setenv(place.salt_variable, "its salt")
    assert place.read(None) == Secret("from the environment", "its salt")
    (tmp_path / "secret").write_text("aus der Datei: ä\nSalz\n", encoding="utf-8")
    assert place.read(str(tmp_path / "secret")) == Secret("aus der Datei: ä", "Salz")


@pytest.mark.parametrize(
    ("secret", "salt", "said"),
    [
        ("", "", f"secret for decryption is missing; {WHERE}"),
        ("a", "", f"salt for decryption is missing; {WHERE}"),
        ("", "a", f"secret for decryption is missing; {WHERE}"),
        ("secret", "salt", f"secret and salt are those built into Cluster Serving, which all know; {WHERE}"),
    ],
)
def test_there_is_no_default(secret: str, salt: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL.secret_variable, secret)
    monkeypatch.setenv(MODEL.salt_variable, salt)
    with pytest.raises(ConfigError) as caught:
        MODEL.read(None)
    assert str(caught.value) == said


@pytest.mark.parametrize("content", [b"", b"hidden", b"hidden\n", b"hidden\n\n", b"hidden\nb\nc\n", b"hidden" * 2000])
def test_a_file_of_anything_but_two_lines_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        MODEL.read(str(path))
    assert str(caught.value) == f"model: secret_file {path}: wants two lines, the secret and the salt"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: secret_file .*none: No such file or directory"):
        RECORDS.read(str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff\n\xfe\n")
    with pytest.raises(ConfigError, match=r"data: secret_file .*bytes: not UTF-8 text"):
        RECORDS.read(str(tmp_path / "bytes"))


def test_a_secret_is_not_shown() -> None:
    assert repr(Secret("hidden", "hidden")) == "Secret()"
