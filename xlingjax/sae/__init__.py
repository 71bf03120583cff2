"""Dictionaries of activations: sparse autoencoders and transcoders."""

from xlingjax.sae.activations import ActivationStream
from xlingjax.sae.blocks import read_activations, write_activations
from xlingjax.sae.coder import EditLatents, LatentEdit, Replace, decode, encode, init_dictionary, reconstruct
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary, load_dictionary, save_dictionary
from xlingjax.sae.settings import DictionarySpec, TrainSettings
from xlingjax.sae.stream import ArrayStream
from xlingjax.sae.training import train_dictionaries

__all__ = [
    "ActivationStream", "ArrayStream", "Dictionary", "DictionaryConfig", "DictionarySpec", "EditLatents", "LatentEdit",
    "Replace", "TrainSettings", "decode", "encode", "init_dictionary", "load_dictionary", "read_activations",
    "reconstruct", "save_dictionary", "train_dictionaries", "write_activations",
]
