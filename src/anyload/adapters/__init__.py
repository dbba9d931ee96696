"""Modules for frameworks: one file each, registered by ``Registry.discover()``.

A framework is an extra of anyload, named after it: ``pip install 'anyload[onnxruntime]'``. No
framework is imported before a model needs it.
"""
