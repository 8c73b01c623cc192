"""A quick run of the benchmark, by its command."""

import json
from pathlib import Path
from typing import Any

from benchmarks.__main__ import main


def quick_run(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run it; return what its JSON says, and its picture as `plot`."""
    written = ["--json", str(folder / "bench.json"), "--plot", str(folder / "bench.png")]
    assert main(["--quick", *arguments, *written]) == 0
    report: dict[str, Any] = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    return report | {"plot": (folder / "bench.png").read_bytes()}
