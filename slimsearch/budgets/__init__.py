"""How much has to go: the target, and genes moved onto it.

budget     the pure repair step
bill       what genes take, in weights or in what is then no longer spent
knapsack   the cheapest genes that take a given amount
"""
