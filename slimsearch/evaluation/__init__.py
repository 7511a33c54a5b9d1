"""From a task's questions to figures.

answers     what somebody else wrote down, in any published form
examining   puts questions to a model in batches; what was answered survives a kill
judging     asks a judge behind an endpoint
marking     answers to marks, marks to figures
sitting     one task, one model or one file of answers
evaluating  the whole of it, compared with another model's
"""
