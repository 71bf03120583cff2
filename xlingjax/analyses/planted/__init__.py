"""Worlds whose truth is known: planted responses, a planted transformer, and what the statistics recover."""
