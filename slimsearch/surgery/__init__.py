"""Taking weights out so that the others make up for them: optimal brain surgery.

hessian        H = X X^T of one matrix
walk           the decoder, block by block, with the calibration's activations in hand
obs            the update, column by column; in C (obs_kernel) and on a GPU (obs_triton)
masks          which weights go; column_blocks: blocks from left to right
level_store    every matrix at every level, solved once; stores: shared by runs
exact          a policy pruned sequentially, block after block
groups         whole heads and channels; thinning: a folder without what no token goes through
"""
