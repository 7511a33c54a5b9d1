"""The matrices of the usual decoder blocks, and a conversation as LLaVA writes it."""

ATTENTION = (
    {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj"},
    {"o": "self_attn.o_proj"},
)
# LLaMA's: attention, then a gated MLP.
GATED = (
    *ATTENTION,
    {"gate": "mlp.gate_proj", "up": "mlp.up_proj"},
    {"down": "mlp.down_proj"},
)

# LLaVA 1.5's own form.
USER_ASSISTANT = (
    "{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else ' ASSISTANT: ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}"
    "{% endfor %}"
    "{{ ' ASSISTANT:' if add_generation_prompt else '' }}"
)
