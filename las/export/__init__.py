"""A model as ONNX graphs, and recognition with onnxruntime alone.

``las.export.runtime`` imports no torch; the other modules do.
"""
