"""Post-processing as the configuration files of Cluster Serving write it."""

from pathlib import Path

import pytest

from beam_serving.config.post_processing import PostProcessing
from beam_serving.config.schema import load_settings


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("topN(5)", PostProcessing(5, rows=False, as_lists=True)),
        (" topn( 1 ) ", PostProcessing(1, rows=False, as_lists=True)),
        ("pickTopN(10)", PostProcessing(10, rows=True, as_lists=True)),
        ("none", PostProcessing(0, rows=False, as_lists=True)),
        ("None", PostProcessing(0, rows=False, as_lists=True)),
    ],
)
def test_the_old_form_is_read(text: str, wanted: PostProcessing) -> None:
    assert PostProcessing.of(text) == wanted


@pytest.mark.parametrize("text", ["", "topN", "topN(0)", "topN(-1)", "topN(1.5)", "topN(1)x", "rankTopN(1)", "none(1)"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^wants topN\(n\), pickTopN\(n\) or none, with n above 0, or file\.py:function$"
    ):
        PostProcessing.of(text)


def test_it_stands_in_the_configuration_and_is_unset_where_blank(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {path: m}\nparams:\n  post_processing: pickTopN(3)\n")
    assert load_settings(path).params.post_processing == "pickTopN(3)"
    path.write_text("model: {path: m}\nparams:\n  post_processing:\n")
    assert load_settings(path).params.post_processing is None
