"""`init`: a configuration to start from."""

from pathlib import Path

import pytest

from beam_serving.cli import main as cli
from beam_serving.config.schema import Settings, load_settings

REPOSITORY = Path(__file__).parents[2]
Captured = pytest.CaptureFixture[str]


def test_a_new_configuration_has_every_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init"]) == 0
    assert capsys.readouterr().out == (
        "wrote config.yaml; set model: path in it, then run python -m beam_serving --config config.yaml\n"
    )
    settings = load_settings(tmp_path / "config.yaml")
    assert settings.model.path == str(tmp_path / "model")
    plain = Settings.model_validate({"model": {"path": settings.model.path}})
    assert settings == plain


def test_it_is_the_configuration_of_the_repository_but_for_the_demo() -> None:
    shown = (REPOSITORY / "config.yaml").read_text(encoding="utf-8").splitlines()
    written = (REPOSITORY / "beam_serving/cli/commands/template.yaml").read_text(encoding="utf-8").splitlines()
    different = [line.split(":")[0].strip() for line, other in zip(shown, written, strict=True) if line != other]
    assert different == ["path", "scale"]


def test_a_folder_gets_a_config_yaml(tmp_path: Path) -> None:
    assert cli.main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "config.yaml").is_file()


def test_a_file_that_is_there_stays_without_force(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("mine", encoding="utf-8")
    assert cli.main(["init", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path} exists already; --force overwrites it\n"
    assert path.read_text(encoding="utf-8") == "mine"
    assert cli.main(["init", str(path), "--force"]) == 0
    assert path.read_text(encoding="utf-8") != "mine"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "none" / "config.yaml"
    assert cli.main(["init", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: cannot be written (No such file or directory)\n"


def test_a_demo_is_a_service_to_start_from(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "mine" / "digits"
    assert cli.main(["init", "--demo", str(folder)]) == 0
    assert capsys.readouterr().out == (
        f"wrote {folder}/config.yaml, and beside it a model, labels.txt and images/; "
        f"serve it by beam-serving -c {folder}/config.yaml\n"
    )
    assert len(list(folder.glob("images/*.png"))) == 7
    assert cli.main(["config", "check", str(folder / "config.yaml")]) == 0


@pytest.mark.parametrize("name", ["config.yaml", "labels.txt", "model", "images"])
def test_a_demo_touches_nothing_that_is_there(name: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / name).mkdir()
    assert cli.main(["init", "--demo", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / name} exists already; --force overwrites it\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_demo_that_cannot_be_written_is_told(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "file"
    file.touch()
    assert cli.main(["init", "--demo", str(file / "digits")]) == 2
    assert capsys.readouterr().err == f"error: {file / 'digits'}: cannot be written (Not a directory)\n"


def test_a_wrong_argument_is_answered_in_one_line(capsys: Captured) -> None:
    assert cli.main(["init", "--forse"]) == 2
    assert capsys.readouterr().err == (
        "error: No such option '--forse'. Did you mean '--force'?; beam-serving init --help has examples\n"
    )


def test_help_has_an_example(capsys: Captured) -> None:
    assert cli.main(["init", "--help"]) == 0
    assert "python -m beam_serving init" in capsys.readouterr().out
