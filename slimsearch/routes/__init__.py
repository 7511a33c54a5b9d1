"""How blocks run: which tokens pass by what, what runs side by side, what sees what.

kinds      classes of tokens
route      a step for each block; traffic: how many tokens meet what in one
passage    the tokens of one call; subset: some of them, taken out and put back
attention  attention over tokens of which some are missing or see less
merging    PruMerge
detour     makes a decoder's blocks run a route; stand_in: modules called by another function
"""
