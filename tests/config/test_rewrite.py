"""The new form of old files, comments kept."""

import re
from pathlib import Path

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

from beam_serving.config.legacy.rewrite import rewrite
from beam_serving.config.legacy.translate import NEW
from beam_serving.config.schema import all_keys, checked, translated
from beam_serving.config.yaml_file import parse_yaml
from beam_serving.transport.keys import shared_keys

CONFIGS = sorted((Path(__file__).parents[1] / "fixtures" / "configs").glob("*.yaml"))
PATH = Path("/x/config.yaml")


def rewritten(text: str) -> str:
    return rewrite(translated(parse_yaml(PATH, text)), all_keys(), {})


OLD = """\
## Service of birds

# where it lies
modelPath: m   # of March
# its name
jobName: birds

# what clients get
postProcessing: "topN(3)"
redisTimeout: 2500  # milliseconds
# how much memory
redisMaxmemory: 8g   # half of it
performance_mode:
# the end
"""

RENEWED = """\
## Service of birds

# its name
name: birds

model:
  # where it lies
  path: m  # of March

data:
  streams: [image_stream, serving_stream, birds]

params:
  # what clients get
  post_processing: topN(3)

redis:
  timeout_s: 2.5  # milliseconds

# Keys of the old file that are not used:
# how much memory
# redisMaxmemory: 8g  # half of it
#   this service starts no Redis; set maxmemory, and maxmemory-policy noeviction, in its own
# performance_mode:

# the end
"""


def test_the_new_form_has_the_comments_of_the_old_one() -> None:
    assert rewritten(OLD) == RENEWED


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_new_form_means_the_same_and_is_new(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    old, new = (translated(parse_yaml(PATH, one)) for one in (text, rewritten(text)))
    assert new.form == NEW
    assert checked(new) == checked(old)
    assert not any(entry.warns for entry in new.entries)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_comment_is_lost(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    new = rewritten(text)
    found = [match[0].rstrip() for match in re.finditer(r"#.*", text)]
    assert found
    assert [comment for comment in found if comment not in new] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_new_form_of_the_new_form_is_itself(path: Path) -> None:
    once = rewritten(path.read_text(encoding="utf-8"))
    unused = once.find("# Keys of the old file")
    kept = once[:unused] if unused >= 0 else once
    assert rewritten(kept).strip() == kept.strip()


def test_secrets_are_not_written() -> None:
    new = rewritten("modelPath: m\nredisSecureTrustStorePassword: s3cret\n")
    assert "s3cret" not in new
    assert "# redisSecureTrustStorePassword: ...\n" in new


def test_a_warning_stands_above_the_key_it_is_about() -> None:
    new = rewritten("modelPath: m\nredisUrl: a:1\nredisSecureEnabled: true\n")
    above = (
        "  # the system's certificates decide whom to trust; set redis: ca_file to a PEM file where Redis has its own\n"
    )
    assert f"{above}  src: rediss://a:1\n" in new


def test_several_keys_that_become_one_keep_all_their_comments() -> None:
    text = "model: {path: /m}\ndata:\n  # where\n  src: a:1  # here\nsecure:\n  # safe\n  secure_enabled: true  # yes\n"
    new = rewritten(text)
    assert "  src: rediss://a:1  # here\n" in new
    assert all(comment in new for comment in ("# where", "# safe", "# yes"))


def test_values_that_have_not_changed_stay_as_they_are_written() -> None:
    new = rewritten("model: {path: 'm', name: \"serving_stream\"}\ndata:\n  src: &here a:1\n  shape: [3,  4]\n")
    assert "  path: 'm'\n" in new
    assert "  shape: [3,  4]\n" in new
    assert "  src: a:1\n" in new


def test_blank_keys_and_sections_stay_blank() -> None:
    new = rewritten("model:\n  path: m\n  name: # which\ndata: # where\nspark:\n")
    assert new.startswith("name:  # which\n\nmodel:\n  path: m\n\ndata:  # where\n\n")
    assert new.endswith("spark:\n")


def test_keys_that_are_merged_in_are_written_out() -> None:
    text = "modelPath: m\nredis:\n  <<: {timeout_s: 3}  # merged\n  # after\n# end\n"
    new = rewritten(text)
    assert "redis:\n  timeout_s: 3\n" in new
    assert new.endswith("# merged\n# after\n# end\n")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)
STREAMS = NAMES.filter(lambda name: shared_keys(name, ("image_stream", "serving_stream")) is None)
"""What a job may be called, since one of its streams has its name."""


@given(path=NAMES, name=STREAMS, workers=st.integers(1, 256), milliseconds=st.integers(1, 10**6))
def test_any_value_survives(path: str, name: str, workers: int, milliseconds: int) -> None:
    values = {"modelPath": path, "jobName": name, "modelParallelism": workers, "redisTimeout": milliseconds}
    text = yaml.safe_dump(values, allow_unicode=True)
    old, new = (checked(translated(parse_yaml(PATH, one))) for one in (text, rewritten(text)))
    assert new == old
