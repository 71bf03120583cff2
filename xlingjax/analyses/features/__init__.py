"""Latents of grammatical values: found by attribution, counted over languages, taken away beside their controls."""
