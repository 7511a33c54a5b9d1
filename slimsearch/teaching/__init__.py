"""What a pruned model learns from the dense one.

said      what the dense model says next, and how far another is from saying it
lessons   what is to be learnt, and how far a model still is from it
training  the steps: of the projector each round, of the champion's last polish
adapting  LoRA beside the decoder's matrices, merged into what is not zero; peft's door
"""
