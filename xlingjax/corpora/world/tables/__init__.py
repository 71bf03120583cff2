"""The lexicon as tables: the concepts, and the forms of each language."""
