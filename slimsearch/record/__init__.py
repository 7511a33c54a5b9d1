"""What is kept of a run and of an evaluation, so that both survive whatever happens.

candidate  what a search talks about: a candidate, its score, a closed round
journal    an append-only file of lines with a CRC each: the only truth about a run
history    what the journal tells
run        the run's folder
results    what an evaluation leaves behind
changes    how a fingerprint differs from that of before
"""
