"""Caffe models, read without Caffe and run by OpenVINO."""

from beam_serving.models.formats.caffe.reader import read_caffe

__all__ = ["read_caffe"]
