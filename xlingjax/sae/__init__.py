"""Dictionaries of activations: sparse autoencoders and transcoders."""

from xlingjax.sae.activations import ActivationStream
from xlingjax.sae.blocks import read_activations, write_activations
from xlingjax.sae.coder import EditLatents, LatentEdit, Replace, decode, encode, init_dictionary, reconstruct
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary, load_dictionary, save_dictionary
from xlingjax.sae.fidelity import measure_in_model
from xlingjax.sae.files import read_dictionary, write_dictionary
from xlingjax.sae.measures import measure_dictionary
from xlingjax.sae.probing import ProbingSettings, feature_absorption, sparse_probing
from xlingjax.sae.settings import DictionarySpec, TrainSettings
from xlingjax.sae.stream import ArrayStream
from xlingjax.sae.training import train_dictionaries

__all__ = [
    "ActivationStream", "ArrayStream", "Dictionary", "DictionaryConfig", "DictionarySpec", "EditLatents", "LatentEdit",
    "ProbingSettings", "Replace", "TrainSettings", "decode", "encode", "feature_absorption", "init_dictionary",
    "load_dictionary", "measure_dictionary", "measure_in_model", "read_activations", "read_dictionary", "reconstruct",
    "save_dictionary", "sparse_probing", "train_dictionaries", "write_activations", "write_dictionary",
]
