"""A model: its files, and what stands in memory.

checkpoint    a model folder as files; keys: which of them holds which parameter
loading       files -> memory; skeleton: blocks without weights; placing, streaming: too large ones
vlm           a model in memory: its parts, its prunable matrices, its losses
senses        the model's own processor; sight: pictures looked at once
batch         sequences side by side; conversation: pairs and text as tokens; confining: what a chat
              template may take
decoding      the greedy loop; resident: a model in torch's memory as a session
"""
