"""What slimsearch can be asked for, a file each; the commands of cli/ are doors to these.

runs       a whole search as one call, and a broken one gone on with
planning   what a run would prune, need and take
pruning    one policy, without a search; narrowing: a smaller dense model
tuning     the projector of a pruned model, trained again
exporting  a model in the forms that engines run; generating asks it, benching times it
timing     a run's champion beside its uniform baseline and its dense model, timed
counting   FLOPs and cache bytes
comparing  our search beside the baselines; sweeping: how much calibration; studying runs both
inputs     what a run reads, found and checked before a model is loaded
assembly   settings -> live objects: the only place that makes plug-ins by name
"""
