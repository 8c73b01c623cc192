"""Model inference behind a queue, as an Apache Beam pipeline: see README.md and `beam_serving.pipeline`."""

__version__ = "0.1.0"
