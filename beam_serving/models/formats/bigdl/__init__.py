"""BigDL `.model` files, read without a JVM."""

from beam_serving.models.formats.bigdl.reader import read_bigdl

__all__ = ["read_bigdl"]
