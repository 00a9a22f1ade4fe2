"""Parts that need transformers, which is imported when the first model is made."""

from __future__ import annotations

from iqn_blocks.hf.loading import load_model as load_model
from iqn_blocks.hf.loading import model_from_config as model_from_config
from iqn_blocks.hf.models import Models as Models
from iqn_blocks.hf.models import hf_embedding as hf_embedding
from iqn_blocks.hf.processor import PixelSpec as PixelSpec
from iqn_blocks.hf.processor import PixelValues as PixelValues
from iqn_blocks.hf.processor import read_processor as read_processor
from iqn_blocks.hf.trunk import HFTrunk as HFTrunk
from iqn_blocks.hf.vision import HFVision as HFVision
from iqn_blocks.hf.vision import HFVisionTokens as HFVisionTokens
from iqn_blocks.hf.vision import HFVisionVector as HFVisionVector
