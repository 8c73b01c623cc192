"""Caffe models, read without Caffe and run by OpenVINO."""

from .reader import read_caffe

__all__ = ["read_caffe"]
