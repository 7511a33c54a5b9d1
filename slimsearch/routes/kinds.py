"""Classes of tokens: P (pictures and questions) and T (text and answers), as numbers."""

PADDING, PROMPT, TEXT = 0, 1, 2
PICTURE = 3  # of P, where pictures are told from questions
