"""Where secrets come from, and that they are never repeated."""

from pathlib import Path

import pytest

from beam_serving.config.schema import PATHS, Settings
from beam_serving.encryption.gcm import keys_to_send_with
from beam_serving.encryption.secrets import MODEL, RECORDS, Place, Secret, warn_of_readers
from beam_serving.encryption.strength import MAKE_ONE
from beam_serving.errors import ConfigError
from beam_serving.launch.preflight import secret_files

WHERE = "set BEAM_SERVING_MODEL_SECRET and BEAM_SERVING_MODEL_SALT, or model: secret_file to a file of two lines"


@pytest.mark.parametrize("place", [MODEL, RECORDS])
def test_a_secret_comes_from_the_environment_or_a_file(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(place.secret_variable, "from the environment")
    monkeypatch.setenv(place.salt_variable, "its salt")
    assert place.read(None) == Secret("from the environment", "its salt")
    (tmp_path / "secret").write_text("aus der Datei: ä\nund das Salz\n", encoding="utf-8")
    assert place.read(str(tmp_path / "secret")) == Secret("aus der Datei: ä", "und das Salz")
    assert place.read_to_encrypt(str(tmp_path / "secret")) == Secret("aus der Datei: ä", "und das Salz")


@pytest.mark.parametrize("place", [MODEL, RECORDS])
@pytest.mark.parametrize("in_file", [True, False])
def test_a_weak_secret_is_refused_wherever_it_is_and_read_where_that_is_allowed(
    place: Place, in_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "secret") if in_file else None
    monkeypatch.setenv(place.secret_variable, "" if in_file else "hidden")
    monkeypatch.setenv(place.salt_variable, "" if in_file else "hidden too")
    (tmp_path / "secret").write_text("hidden\nhidden too\n", encoding="utf-8")
    reason = f"secret has 6 characters, wanted are at least 16; {MAKE_ONE}; {place}"
    with pytest.raises(ConfigError) as caught:
        place.read(file)
    assert str(caught.value) == f"{reason}; what is encrypted with it already is read with {place.allow_key}"
    assert place.read(file, allow_weak=True) == Secret("hidden", "hidden too")
    with pytest.raises(ConfigError) as caught:
        place.read_to_encrypt(file)
    assert str(caught.value) == reason


def test_the_secret_that_every_old_server_had_is_never_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORDS.secret_variable, "secret")
    monkeypatch.setenv(RECORDS.salt_variable, "salt")
    with pytest.raises(ConfigError, match="are those built into Cluster Serving, which all know"):
        RECORDS.read(None, allow_weak=True)


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666, 0o777])
def test_a_file_that_every_user_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("a secret of the tests\nand its salt\n", encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        MODEL.read(str(path))
    said = f"model: secret_file {path}: every user may write it (mode {mode:04o}); chmod 600 it"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("mode", "warns"), [(0o600, False), (0o400, False), (0o640, False), (0o440, False), (0o644, True), (0o606, True)]
)
def test_a_file_that_every_user_may_read_is_warned_of(
    mode: int, warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secret"
    path.write_text("a secret of the tests\nand its salt\n", encoding="utf-8")
    path.chmod(mode)
    warn_of_readers([("data: secret_file", str(path)), ("other", None), ("gone", str(tmp_path / "gone"))])
    said = f"data: secret_file {path}: every user may read or write it (mode {mode:04o}); chmod 600 it"
    assert caplog.messages == ([said] if warns else [])


def test_every_file_with_a_secret_that_a_configuration_names_is_looked_at(tmp_path: Path) -> None:
    files = {key: str(tmp_path / key.replace(": ", "-")) for key in ("model: secret_file", "data: secret_file")}
    files["redis: password_file"] = str(tmp_path / "password")
    files["flink: worker_pool_secret_file"] = str(tmp_path / "pool")
    settings = Settings.model_validate(
        {
            "model": {"path": "noop", "secret_file": files["model: secret_file"]},
            "data": {"secret_file": files["data: secret_file"]},
            "redis": {"password_file": files["redis: password_file"]},
            "flink": {"worker_pool_secret_file": files["flink: worker_pool_secret_file"]},
        }
    )
    assert dict(secret_files(settings)) == files
    named = [path for path in PATHS if path.endswith(("secret_file", "password_file"))]
    assert sorted(path.replace(".", ": ") for path in named) == sorted(files)


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


@pytest.mark.parametrize("allow_weak", [False, True])
@pytest.mark.parametrize(
    ("secret", "salt", "what"), [("hidden\udcff" * 3, "salt", "secret"), ("hidden", "s\udcfc", "salt")]
)
def test_a_variable_of_other_bytes_than_utf_8_is_told(
    secret: str, salt: str, what: str, allow_weak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODEL.secret_variable, secret)
    monkeypatch.setenv(MODEL.salt_variable, salt)
    with pytest.raises(ConfigError) as caught:
        MODEL.read(None, allow_weak=allow_weak)
    assert str(caught.value) == f"{what} is not UTF-8 text; {WHERE}"


def test_a_secret_of_another_type_is_told() -> None:
    with pytest.raises(TypeError, match=r"^secret is bytes, wanted is str$"):
        keys_to_send_with(b"a secret of the tests", "and its salt")  # type: ignore[arg-type]


def test_a_secret_is_not_shown() -> None:
    assert repr(Secret("hidden", "hidden")) == "Secret()"
