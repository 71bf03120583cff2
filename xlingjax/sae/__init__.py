"""Dictionaries of activations: sparse autoencoders and transcoders."""

from xlingjax.sae.coder import EditLatents, LatentEdit, Replace, decode, encode, init_dictionary, reconstruct
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary, load_dictionary, save_dictionary

__all__ = [
    "Dictionary", "DictionaryConfig", "EditLatents", "LatentEdit", "Replace", "decode", "encode", "init_dictionary",
    "load_dictionary", "reconstruct", "save_dictionary",
]
