"""Graphs: a model as ONNX, built by ourselves so that every engine takes it whole.

`anatomy` reads what a decoder is made of, `decoder` spells it out as a graph, `linear` says how a
matrix stands in it (dense, int8), `pictures` traces the vision side, `sheet` is a graph on its way
to a file, `outside` checks a file before an engine opens it. The only door to onnx.

To add a family of decoders:
1. Find `model_type` in its text config, and add a line to KNOWN in anatomy.py.
2. Read its parts into Block and Decoder there; what differs in kind becomes a field.
3. Spell that field out in decoder.py, with the operators that are there already where possible.
4. Add a tiny random model to tests/graphs/ and compare logits with torch's.
"""
