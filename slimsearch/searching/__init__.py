"""The search: from a space of policies to a champion. Begin with loop.

space             the genes of a search, and the way from genes to a policy
parts             what a search works with, and where it stands
loop              rounds of candidates, each followed by a projector step
stock             its level store, solved, shared or read again
race              candidates on growing shares of the calibration
evaluate          one candidate: edits on, terms measured; objective: the terms and their weights
sensitivity       what each matrix is worth; allocation: policies by rule from that
first_generation  where a search starts; alone: a strategy of one candidate
density, ranks    equation 7; whether two lists order the same things alike
crown             from survivors to a champion; repruning: a policy pruned anew, and baselines
polishing         what is trained at the end; examine: the final table; samples: answers to look at
picking, fronts   which is best where several terms count; a front as files
budgeting         what the ratio is a share of
watch             what a search tells whoever watches it
"""
