"""Paragraphs and questions in SQuAD's layout, in two languages, a tokenizer for them, and an encoder of seconds."""

import json
from pathlib import Path

import jax
import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.models.config import TransformerConfig
from xlingjax.models.transformer import forward, init_params
from xlingjax.training.tokenizer import train_tokenizer

PARAGRAPHS = {
    "en": [
        ("The mill stands by the river Aller. It was built in 1704 by Greta Holm, who had come from the coast. "
         "Since the flood of 1825 its wheel has turned only in summer.",
         [("When was the mill built?", "1704"), ("Who built the mill?", "Greta Holm"),
          ("When does the wheel turn?", "in summer")]),
        ("A lighthouse keeper counts ships. On the island of Vaar the keeper wrote down 312 ships a year, most of them "
         "with salt, some with oranges from the south.",
         [("How many ships were counted?", "312 ships"), ("What did most ships carry?", "salt")]),
    ],
    "de": [
        ("Die Mühle steht am Fluss Aller. Sie wurde 1704 von Greta Holm gebaut, die von der Küste gekommen war. "
         "Seit der Flut von 1825 dreht sich ihr Rad nur im Sommer.",
         [("Wann wurde die Mühle gebaut?", "1704"), ("Wer baute die Mühle?", "Greta Holm"),
          ("Wann dreht sich das Rad?", "im Sommer")]),
        ("Ein Leuchtturmwärter zählt Schiffe. Auf der Insel Vaar schrieb der Wärter 312 Schiffe im Jahr auf, die "
         "meisten mit Salz, einige mit Orangen aus dem Süden.",
         [("Wie viele Schiffe wurden gezählt?", "312 Schiffe"), ("Was trugen die meisten Schiffe?", "Salz")]),
    ],
}
ENCODER = TransformerConfig(  # BERT's shape
    vocab_size=600, layers=2, width=16, heads=2, mlp_width=32, positions="learned", max_length=48, norm_place="after",
    embed_norm=True, final_norm=False, causal=False, head="masked")


def write(folder: Path) -> Path:
    """Files `xquad.<language>.json`; an article holds one paragraph."""
    for language, paragraphs in PARAGRAPHS.items():
        data = []
        for a, (context, asked) in enumerate(paragraphs):
            qas = [{"id": f"{a}-{q}", "question": question,
                    "answers": [{"text": answer, "answer_start": context.index(answer)}]}
                   for q, (question, answer) in enumerate(asked)]
            data.append({"title": f"article {a}", "paragraphs": [{"context": context, "qas": qas}]})
        path = folder / f"xquad.{language}.json"
        path.write_text(json.dumps({"version": "1.1", "data": data}, ensure_ascii=False), encoding="utf-8")
    return folder


def tokenizer(objective: str = "masked"):
    """Byte-pair pieces of the paragraphs."""
    texts = tuple(text for paragraphs in PARAGRAPHS.values() for context, asked in paragraphs
                  for text in (context, *(question for question, _ in asked)))
    corpus = Corpus(texts, np.full(len(texts), "en"), np.array([str(i) for i in range(len(texts))]),
                    np.full(len(texts), ""), np.zeros((len(texts), 0), np.int8))
    return train_tokenizer(corpus, ENCODER.vocab_size, objective=objective)


def body(params, tokens, mask):
    """The encoder as a function of its parameters."""
    return forward(params, ENCODER, tokens, mask)[0]


def start(seed: int = 0):
    return init_params(ENCODER, jax.random.key(seed))
