"""Neural networks: one training loop, one file format and one server for all of them.

`server`, `onnx_file`, `plan`, `piecewise` and `detector` serve and import no training framework;
the other modules train, import PyTorch, and are imported by `fit` alone.
"""
