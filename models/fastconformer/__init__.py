"""The FastConformer acoustic encoder that Canary, its CTC aligner and Parakeet share.

In: padded waveforms. Out: one vector per 80 ms of audio.
"""
