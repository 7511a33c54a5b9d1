"""PaliGemma: one question and one answer; picture and question attend to each other wholly."""

from slimsearch.contracts import Architecture


class PaliGemma(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
    tiles = True
    marks = {"token_type_ids": "answers"}
    template = (
        "{% for message in messages %}"
        "{% for part in message['content'] %}"
        "{{ '<image>' + bos_token if part['type'] == 'image' else part['text'] }}"
        "{% endfor %}"
        "{{ eos_token if message['role'] == 'assistant' else '\n' }}"
        "{% endfor %}"
    )
    most_turns = 1
