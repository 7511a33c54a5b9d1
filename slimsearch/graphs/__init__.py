"""Graphs: a model as ONNX, built by ourselves so that every engine takes it whole.

`layouts` says where each kind of decoder keeps its parts, `anatomy` reads them, `attention`,
`masks` and `layers` spell them out and `decoder` puts them together, `linear` says how a matrix
stands in a graph (dense, int8), `pictures` traces the vision side, `sheet` is a graph on its way
to a file, `outside` checks a file before an engine opens it. The only door to onnx.

To add a family of decoders:
1. Find `model_type` in its text config, and add a line to layouts.py.
2. What differs in kind becomes a field there, read into Block or Decoder in anatomy.py.
3. Spell that field out in the module it belongs to, with operators that are there where possible.
4. Add a tiny random model to tests/graphs/ and compare logits with torch's.
"""
