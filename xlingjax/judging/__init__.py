"""Judges of generated text: its language, a concept's presence, its fluency; each with how it errs."""
