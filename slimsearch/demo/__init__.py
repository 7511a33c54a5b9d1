"""The demo patient: a small vision-language model of our own, with the world it was trained on.

`world` draws its pictures, questions and text; `train` makes the model from nothing; the folder
`model` holds the trained result in the ordinary Hugging Face layout.
"""
