"""Judges of generated text: its language, a concept's presence, its fluency; each with how it errs."""

TRAIN_SET_TEST = (2, 1, 1)  # shares of the documents that train a judge, set its threshold, and count its errors
