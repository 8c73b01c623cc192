"""The benchmark, end to end with real servers. No test looks at how fast anything is, only at what was measured."""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from beam_serving.models.base import ModelOptions
from beam_serving.models.batches import predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load
from beam_serving.transforms.image import ImageRules, tensor_of_image
from beam_serving.transforms.topn import top_classes
from benchmarks import workloads
from benchmarks.__main__ import main
from benchmarks.handwritten import Steps
from benchmarks.summary import summarise, table
from tests.benchmarks.compare import quick_run

IN_PROCESS = {
    "records_per_s",
    "latency_1_in_flight_p50_ms",
    "latency_1_in_flight_p99_ms",
    "latency_64_in_flight_p50_ms",
    "latency_64_in_flight_p99_ms",
    "cpu_ms_per_record",
    "memory_mb",
}
BEHIND_REDIS = IN_PROCESS | {"redis_cpu_ms_per_record"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one quick run wrote."""
    return quick_run(tmp_path_factory.mktemp("bench"), "--workload", "noop", "--workers", "2", "--batch-size", "16")


def test_a_run_measures_every_figure_of_every_target(outcome: dict[str, Any]) -> None:
    measured = outcome["workloads"]["noop"]["targets"]
    assert {name: set(figures) for name, figures in measured.items()} == {
        "loop": IN_PROCESS,
        "loops": IN_PROCESS,
        "redis_loop": BEHIND_REDIS,
        "service": BEHIND_REDIS,
    }
    for figures in measured.values():
        for about in figures.values():
            assert about["median"] > 0
            assert len(about["rounds"]) == outcome["rounds"] == 1


def test_every_figure_that_the_plain_loop_has_is_a_ratio_to_it(outcome: dict[str, Any]) -> None:
    measured = outcome["workloads"]["noop"]["targets"]
    assert {about["ratio"] for about in measured["loop"].values()} == {1.0}
    for name, figures in measured.items():
        for figure in IN_PROCESS:
            base = measured["loop"][figure]["median"]
            assert figures[figure]["ratio"] == pytest.approx(figures[figure]["median"] / base), (name, figure)
    assert "ratio" not in measured["service"]["redis_cpu_ms_per_record"]


def test_a_run_says_on_what_and_how_it_was_measured(outcome: dict[str, Any]) -> None:
    machine = outcome["machine"]
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert machine["load_average_at_start"] >= 0
    assert outcome["workloads"]["noop"]["batch_size"] == 16
    assert outcome["workloads"]["noop"]["workers"] == 2


def test_the_plot_is_a_picture(outcome: dict[str, Any]) -> None:
    assert cv2.imdecode(np.frombuffer(outcome["plot"], np.uint8), cv2.IMREAD_COLOR) is not None


def test_the_handwritten_steps_give_what_the_service_gives(tmp_path: Path) -> None:
    workload = workloads.real(tmp_path)
    payloads = workload.payloads[:4]
    rules = ImageRules("rgb", "auto", (workload.data["mean"],), (workload.data["scale"],))
    model = load(find_model(workload.model), ModelOptions(threads=1))
    tensors = [{"input": tensor_of_image(payload, model.inputs[0], rules)} for payload in payloads]
    ours = top_classes(predict_batch(model, tensors)["scores"], workload.top_n)
    theirs = Steps(workload.model, 1, workload.top_n).serve(payloads)
    for mine, (classes, scores) in zip(ours, theirs, strict=True):
        assert mine.classes.tolist() == classes.tolist()
        assert mine.scores == pytest.approx(scores)


def test_the_network_has_the_size_of_mobilenet_v2(tmp_path: Path) -> None:
    assert "3.5 M parameters" in workloads.real(tmp_path).title


def test_the_photographs_are_distinct_and_of_the_size_of_photographs() -> None:
    photographs = {workloads.photograph(seed) for seed in range(workloads.IMAGES)}
    assert len(photographs) == workloads.IMAGES
    assert all(40_000 < len(photograph) < 60_000 for photograph in photographs)


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    figures = {"loop": {"records_per_s": [10.0, 100.0, 20.0]}, "service": {"records_per_s": [20.0, 110.0, 10.0]}}
    assert summarise(figures)["service"]["records_per_s"] == {
        "median": 20.0,
        "ratio": 1.1,
        "rounds": [20.0, 110.0, 10.0],
    }


def test_a_figure_that_a_target_lacks_is_a_dash_in_the_table() -> None:
    figures = {"loop": {"memory_mb": [50.0]}, "service": {"memory_mb": [90.0], "redis_cpu_ms_per_record": [0.25]}}
    row = next(line for line in table(summarise(figures)).splitlines() if "Redis" in line)
    assert row.split() == ["CPU", "of", "Redis", "per", "record,", "ms", "-", "0.25"]


def test_the_table_shows_medians_and_ratios() -> None:
    figures = {"loop": {"records_per_s": [2000.0]}, "service": {"records_per_s": [3000.0]}}
    lines = table(summarise(figures)).splitlines()
    assert lines[0].split() == ["loop", "service"]
    assert lines[1].split() == ["records/s", "2,000", "(1.00)", "3,000", "(1.50)"]


def test_a_count_below_one_is_refused_with_what_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "0"]) == 2
    assert "Invalid value for '--rounds': 0 is not in the range x>=1" in capsys.readouterr().err


def test_a_missing_folder_is_refused_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "no/such/folder/bench.json"]) == 2
    assert capsys.readouterr().err == "error: no/such/folder/bench.json: there is no folder no/such/folder\n"


def test_a_plot_without_matplotlib_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["--plot", "bench.png"]) == 2
    expected = "error: --plot needs matplotlib; pip install 'beam-serving[bench]' brings it\n"
    assert capsys.readouterr().err == expected


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Examples:\n  python -m benchmarks --rounds 7" in capsys.readouterr().out
