"""When, where and why multilingual language models come to share neurons across languages.

One idea carries everything: an analysis is a function from *named neurons* and *labelled sentences* to
*labelled arrays*.

    import xlingjax as xl

    model = xl.load_model("bigscience/bloom-560m")            # or a folder, or a checkpoint of ours
    corpus = xl.corpora.read_sib200("sib200.tsv.xz", ["eng_Latn", "spa_Latn"])
    responses = xl.collect(model, corpus, pool="max")          # one number a sentence and neuron
    english = corpus.languages == "eng_Latn"
    ap = xl.kernels.average_precision(
        responses.rows(english).matrix(), corpus.labels[english] == 1)   # [concept, neuron]
    experts = xl.kernels.expert_sets(ap, k=500)                # [concept, 500], best first

`model(tokens, mask, capture=..., edits=...)` is the one door into a model: captures are returned
values, edits are data. `xl.kernels` are plain functions on arrays for your own JAX code. The main job
over the checkpoints of a pre-training run is `python -m experiments.trace`.
"""

from xlingjax import analyses, corpora, kernels, models, responses
from xlingjax.errors import InputError
from xlingjax.models import Edit, Model, Splice, load_model, save_model
from xlingjax.neurons import Neuron, NeuronIndex
from xlingjax.responses import Plan, Responses, collect, collect_tokens, open_responses, plan

__all__ = [
    "Edit", "InputError", "Model", "Neuron", "NeuronIndex", "Plan", "Responses", "Splice", "analyses",
    "collect", "collect_tokens", "corpora", "kernels", "load_model", "models", "open_responses",
    "plan", "responses", "save_model",
]
