"""Dictionaries of activations: sparse autoencoders and transcoders."""

from xlingjax.sae.coder import EditLatents, LatentEdit, Replace, decode, encode, init_dictionary, reconstruct
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary, load_dictionary, save_dictionary
from xlingjax.sae.fidelity import measure_in_model
from xlingjax.sae.files import read_dictionary, write_dictionary
from xlingjax.sae.measures import measure_dictionary
from xlingjax.sae.probing import ProbingSettings, feature_absorption, sparse_probing

__all__ = [
    "Dictionary", "DictionaryConfig", "EditLatents", "LatentEdit", "ProbingSettings", "Replace", "decode", "encode",
    "feature_absorption", "init_dictionary", "load_dictionary", "measure_dictionary", "measure_in_model",
    "read_dictionary", "reconstruct", "save_dictionary", "sparse_probing", "write_dictionary",
]
