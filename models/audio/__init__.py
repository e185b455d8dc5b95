"""Audio before and after the model: any file in, 16 kHz mono `Audio` and model-sized `Chunk`s out; texts rejoined.

Nothing here imports torch.
"""

from models.audio.decode import decode_file
from models.audio.merge import merge
from models.audio.split import split

__all__ = ["decode_file", "merge", "split"]
