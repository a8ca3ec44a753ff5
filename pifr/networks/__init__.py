"""The networks of SRTC-Net (paper, section 3), each built from a validated configuration.

`paper` and `lite` are two configurations of the same classes; `pifr/training/configs` holds both.
"""
