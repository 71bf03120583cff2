"""Shapes of published models, as their `config.json` has them."""

BLOOM_560M = {"vocab_size": 250_880, "hidden_size": 1024, "n_layer": 24, "n_head": 16}
