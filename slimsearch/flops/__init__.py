"""What a model computes, by formula: floating point operations and bytes of the KV cache.

shape     a model's sizes, from its configuration alone
tower     what reads pictures, for one picture or one tile
count     operations by part, of a dense engine and of one that passes over zeros
meter     the operations of one part, for a bill
paper     the third paper's Table 2 in its own accounting, and what is really computed
"""
