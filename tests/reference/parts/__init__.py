"""The parts that papers have added, one file each: the equations alone, slow and meant to be read.

Nothing here imports `iqn_blocks`. Tensors are found by the names of the part's `state_dict`.
"""

from __future__ import annotations
