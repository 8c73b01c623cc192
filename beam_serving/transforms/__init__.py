"""The steps between the source and the sink, one file each."""

from beam_serving.transforms.batch import Batch
from beam_serving.transforms.decode import Decode
from beam_serving.transforms.image import ImageRules
from beam_serving.transforms.infer import Infer
from beam_serving.transforms.topn import TopN

__all__ = ["Batch", "Decode", "ImageRules", "Infer", "TopN"]
