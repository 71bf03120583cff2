"""The influence experiment: what is planted is found, what is not there is not, and nothing is done twice."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_trace
import xarray as xr

from xlingjax.analyses.influence import InfluenceSettings, Queries, halved, read_queries, run, trace_influence
from xlingjax.analyses.influence import scanning as scanned
from xlingjax.analyses.influence.crossing import (
    MEASURES,
    Ranks,
    Sentences,
    choose_sentences,
    rank_translations,
    ratio_by_layer,
    translations,
    without_anchors,
)
from xlingjax.analyses.influence.scanning import Training, ask, read_training
from xlingjax.analyses.influence.summary import summary
from xlingjax.corpora import Corpus, mini_world
from xlingjax.corpora.tokenising import tokenise
from xlingjax.errors import InputError
from xlingjax.influence import FactorSettings, fit_factors, pairwise, sequence_gradients
from xlingjax.models import Model
from xlingjax.report.influence_page import write_influence_report

SETTINGS = InfluenceSettings(
    factors=FactorSettings(parts=2), rank=4, rescored=6, shown=2, tops=4, asked=2, pairs=12, distractors=5,
    permutations=39, draws=50, block=40)


def decoder() -> Model:
    """Larger weights, or every gradient is that of the embedding alone."""
    own = tiny_trace.model()
    import jax

    return dataclasses.replace(
        own, params=jax.tree.map(lambda leaf: leaf * 3 if leaf.ndim > 1 else leaf, own.params), fingerprint="grown")


def lengths(corpus: Corpus) -> np.ndarray:
    return tokenise(tiny_trace.model().tokenizer, corpus.texts, 512).lengths


def texts() -> Corpus:
    """40 sentences of one length of batches: every other length is compiled anew."""
    whole = mini_world("train", sentences=100, languages=("eng", "spa"))
    near = (lengths(whole) > 25) & (lengths(whole) <= 31)
    rows = [np.flatnonzero(near & (whole.languages == name))[:20] for name in ("eng", "spa")]
    return whole.rows(np.concatenate(rows))


def probe(languages: tuple[str, ...] = ("eng", "spa", "rus")) -> Corpus:
    """Translated sentences, all of that length."""
    whole = mini_world(languages=languages)
    rows = np.arange(len(whole)).reshape(len(languages), -1)
    near = (lengths(whole) > 24) & (lengths(whole) <= 31)
    return whole.rows(rows[:, near[rows].all(0)].reshape(-1))


def chosen(corpus: Corpus, count: int) -> Sentences:
    return choose_sentences(corpus, count, 0, tiny_trace.model().tokenizer, 64)


def same_in_both(count: int = 24) -> Corpus:
    """A second language whose sentences are the first one's, word for word."""
    own = probe(("eng",)).rows(np.arange(count))
    both = dataclasses.replace(own, texts=own.texts * 2, languages=np.repeat(["eng", "xxx"], count),
                               documents=np.tile(own.documents, 2), parallel=np.tile(own.parallel, 2),
                               labels=np.tile(own.labels, (2, 1)))
    return both


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    world = probe()
    folder = tmp_path_factory.mktemp("influence")
    found = tiny_trace.checkpoints(folder / "models", {"step0": tiny_trace.model(), "step8": tiny_trace.model(1)})
    return found, world, folder, trace_influence(found, texts(), world, SETTINGS, folder / "run")


class TestTranslations:
    def test_a_translation_word_for_word_stands_above_all_and_is_nothing_without_anchors(self) -> None:
        model, sentences = decoder(), chosen(same_in_both(), 12)
        factors = fit_factors(model, tokenise(model.tokenizer, texts().texts, 64))
        found = translations(rank_translations(model, factors, sentences, SETTINGS), sentences, ["eng", "xxx"],
                             SETTINGS)
        at = found.sel(source="eng", target="xxx")
        assert float(at["auc"].sel(measure="normalised")) > 0.95
        assert float(at["auc"].sel(measure="shared tokens")) > 0.95
        assert float(at["p"].sel(measure="normalised")) <= 2 / 40
        assert float(at["auc"].sel(measure="without anchors")) < 0.75, "what the sentences share is not scored"
        assert int(found["emptied"]) > 0
        assert float(at["auc"].sel(measure="flipped")) <= float(at["auc"].sel(measure="normalised"))
        assert abs(float(at["null"].sel(measure="normalised")) - 0.5) < 0.15

    def test_sentences_that_are_no_translations_are_within_the_null(self) -> None:
        """Scores without any signal: p-values are spread over 0 to 1, and the mean AUC is a half."""
        sentences = chosen(mini_world(languages=("eng", "spa")), 24)
        p, mean = [], []
        for seed in range(30):
            auc = np.random.default_rng(seed).random((len(MEASURES), 2, 2, 24, 24))
            one = translations(Ranks(auc, 0), sentences, ["eng", "spa"], dataclasses.replace(SETTINGS, seed=seed))
            p.append(float(one["mean_p"].sel(measure="normalised", pairs="trained")))
            mean.append(float(one["mean"].sel(measure="normalised", pairs="trained")))
        assert np.mean(np.array(p) <= 0.1) < 0.3 and np.mean(np.array(p) > 0.5) > 0.2
        assert abs(np.mean(mean) - 0.5) < 0.03

    def test_anchors_are_pieces_that_a_sentence_shares_with_its_translation(self) -> None:
        model = tiny_trace.model()
        sentences = chosen(probe(), 12)
        tokens = tokenise(model.tokenizer, sentences.corpus.texts, 64)
        left, _ = without_anchors(model, tokens, sentences, 0)
        assert all(kept.all() for kept in left[:12]), "with itself a language has no anchors"
        pieces = [set(ids[~special].tolist()) for ids, special in zip(tokens.ids, tokens.special)]
        for i in range(12, 36):
            mine = pieces[i] & pieces[i % 12]
            lost = set(tokens.ids[i][~left[i]].tolist())
            letters = {t for t in mine if any(c.isalnum() for c in model.tokenizer.convert_ids_to_tokens(t))
                       and not model.tokenizer.convert_ids_to_tokens(t).startswith("<0x")}
            assert letters <= lost
        assert 0 < np.mean([kept.mean() for kept in left[12:24]]) < 1

    def test_languages_that_training_has_not_seen_stand_apart(self) -> None:
        sentences = chosen(probe(), 12)
        auc = np.full((len(MEASURES), 3, 3, 12, 12), 0.5)
        auc[:, 0, 1] = auc[:, 1, 0] = 0.9
        found = translations(Ranks(auc, 0), sentences, ["eng", "spa"], SETTINGS)
        assert found["mean"].sel(measure="influence").values.round(6).tolist() == [0.9, 0.5]


class TestClaims:
    @pytest.mark.parametrize("steps, last, crosses", [
        ((0, 8), 0.8, [False, True]), ((0, 8), 0.65, [False, False]), ((4, 8), 0.65, [True, True])])
    def test_what_an_untrained_model_ranks_high_is_no_knowledge(self, steps, last, crosses) -> None:
        """Both checkpoints stand above the null; only what training has added counts, where that can be told."""
        sentences, found = chosen(probe(("eng", "spa")), 24), []
        for height in (0.65, last):
            auc = np.random.default_rng(0).uniform(0.45, 0.55, (len(MEASURES), 2, 2, 24, 24))
            auc[..., np.arange(24), np.arange(24)] = height + np.random.default_rng(1).uniform(-0.05, 0.05, 24)
            found.append(translations(Ranks(auc, 0), sentences, ["eng", "spa"], SETTINGS))
        both = xr.concat(found, "checkpoint").assign_coords(
            checkpoint=["a", "b"], step=("checkpoint", list(steps)), tokens_seen=("checkpoint", [np.nan, np.nan]))
        said, _ = run.claims(both)
        assert said["above"].all() and said["crosses"].values.tolist() == crosses
        assert np.isnan(said["gain"]).all() == (steps[0] != 0)


class TestScan:
    def test_hits_are_the_largest_influences_by_whole_gradients(self, made) -> None:
        found, _, _, tree = made
        model = decoder()
        training = read_training(model, texts(), 64)
        factors = fit_factors(model, training.tokens)
        queries = halved(texts(), [3, 30])
        asked = ask(model, factors, queries, SETTINGS, None, 0)
        whole = pairwise(model, factors.matrices, asked.gradients, training.tokens).sum((2, 3))
        scores = scanned.scan(model, factors, asked, training, dataclasses.replace(SETTINGS, rank=0), made[2] / "scan")
        np.testing.assert_allclose(scores.sum(-1), whole, rtol=0, atol=1e-4 * np.abs(whole).max())
        hits = scanned.read_hits(model, factors, asked, training, scores, SETTINGS)
        np.testing.assert_array_equal(hits["row"].sel(side="most"), np.argsort(-whole, axis=1)[:, :2])
        np.testing.assert_array_equal(hits["row"].sel(side="least"), np.argsort(whole, axis=1)[:, :2])
        np.testing.assert_allclose(hits["by_layer"].sum("layer"), hits["score"], rtol=1e-5)
        for at in hits.stack(place=("query", "side", "rank"))["place"].values:
            one = hits.sel(query=at[0], side=at[1], rank=at[2])
            weights, pieces = json.loads(one["weights"].item()), json.loads(one["pieces"].item())
            assert len(weights) == len(pieces)
            assert sum(weights) == pytest.approx(float(one["score"]), rel=1e-2, abs=1e-3 * np.abs(whole).max())
        # A query that is a training sequence: nothing matters more to it than itself.
        assert hits["row"].sel(side="most", rank=0).values.tolist() == [3, 30]
        own = sequence_gradients(model, factors.matrices, *queries.tokens(model, 64))
        wanted = sum((own[m.name] * factors.precondition(own)[m.name]).sum((1, 2, 3)) for m in factors.matrices)
        np.testing.assert_allclose(asked.own, wanted, rtol=1e-4)

    def test_queries_by_parts_are_queries_at_once(self, monkeypatch) -> None:
        model = decoder()
        training = read_training(model, texts(), 64)
        factors = fit_factors(model, training.tokens)
        whole = mini_world("train", sentences=100, languages=("eng", "spa"))
        order = np.argsort(lengths(whole))
        queries = halved(whole, order[[20, 180, 21, 181]])  # longer batches come first, so parts are out of order
        plain = sequence_gradients(model, factors.matrices, *queries.tokens(model, 64))
        own = sum((plain[name] * one).sum((1, 2, 3)) for name, one in factors.precondition(plain).items())
        for rank in (0, 4):
            wanted = ask(model, factors, queries, SETTINGS, None, rank)
            monkeypatch.setattr(scanned, "AT_ONCE", 1)
            found = ask(model, factors, queries, dataclasses.replace(SETTINGS, batch_tokens=64), None, rank)
            monkeypatch.undo()
            np.testing.assert_allclose(found.own, own, rtol=1e-3)
            for name, one in wanted.gradients.items():
                of = lambda part, rank=rank: part.tall @ part.wide if rank else part
                np.testing.assert_allclose(
                    of(found.gradients[name]), of(one), rtol=0, atol=1e-3 * np.abs(of(one)).max())

    @pytest.mark.slow
    def test_candidates_by_tokens_and_by_stored_gradients(self, tmp_path) -> None:
        model = decoder()
        training = read_training(model, texts(), 64)
        factors = fit_factors(model, training.tokens)
        asked = ask(model, factors, halved(texts(), [3, 30]), SETTINGS, None, 0)
        for more in ({}, {"components": 10**6}):
            settings = dataclasses.replace(SETTINGS, candidates=9, rank=0, **more)
            scores = scanned.scan(model, factors, asked, training, settings, tmp_path / str(len(more)))
            assert ((~np.isnan(scores[..., 0])).sum(1) == 9).all() and not np.isnan(scores[[0, 1], [3, 30]]).any()
        whole = scanned.scan(model, factors, asked, training, dataclasses.replace(SETTINGS, rank=0), tmp_path / "all")
        for query in range(2):
            chosen = np.flatnonzero(~np.isnan(scores[query, :, 0]))
            assert set(chosen) == set(np.argsort(-whole[query].sum(-1))[:9])

    def test_the_ratio_of_a_query_to_itself_is_one(self) -> None:
        rng = np.random.default_rng(0)
        corpus = texts()
        queries = Queries(("a",) * 4, ("b",) * 4, np.array(["eng", "eng", "spa", "spa"]), np.array(list("0101")),
                          np.array(list("0101")))
        assert queries.aligned and not queries.rows(np.arange(3)).aligned
        scores = rng.standard_normal((4, len(corpus), 3)).astype(np.float32)
        scores[2:] = 0.5 * scores[:2]  # a translation has half of the influence
        found = ratio_by_layer(scanned.Asked(queries, {}, np.ones(4)), Training(corpus, None), scores, SETTINGS)
        np.testing.assert_allclose(np.diagonal(found["whole"].values), 1, rtol=1e-6)
        assert float(found["whole"].sel(source="eng", target="spa")) == pytest.approx(0.5)
        assert float(found["whole"].sel(source="spa", target="eng")) == pytest.approx(2.0)
        assert abs(float(found["whole_unrelated"].sel(source="eng", target="spa"))) < 0.4


class TestRun:
    def test_result_and_page(self, made, tmp_path) -> None:
        _, _, _, tree = made
        assert {"queries", "hits", "languages", "ratio", "translations", "claims", "pairs"} == set(tree.children)
        assert tree["queries"].sizes["query"] == 6 and tree["hits"].sizes["checkpoint"] == 2
        assert float(tree["languages"]["chance"].sum("language").min()) == pytest.approx(1)
        said = summary(tree)
        assert any("not shown to cross" in line or "crosses languages" in line for line in said)
        page = write_influence_report(tree, tmp_path, said).read_text()
        assert 'class="up"' in page and "Sequences to read" in page and (tmp_path / "influence_ranks.png").exists()

    def test_a_run_that_was_killed_ends_as_an_unbroken_one(self, made, tmp_path, monkeypatch) -> None:
        found, world, _, tree = made
        real, calls = scanned.pairwise, []

        def dies(*args, **options):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*args, **options)

        monkeypatch.setattr(scanned, "pairwise", dies)
        with pytest.raises(KeyboardInterrupt):
            trace_influence(found, texts(), world, SETTINGS, tmp_path)
        monkeypatch.setattr(scanned, "pairwise", lambda *args, **options: calls.append(1) or real(*args, **options))
        calls.clear()
        again = trace_influence(found, texts(), world, SETTINGS, tmp_path)
        assert len(calls) == 4, "scores of the first checkpoint are read"
        assert again.identical(tree) or all(
            again[name].to_dataset().equals(tree[name].to_dataset()) for name in tree.children)
        monkeypatch.setattr(run, "fit_factors", None)
        assert trace_influence(found, texts(), world, SETTINGS, tmp_path)["claims"].to_dataset().equals(
            tree["claims"].to_dataset())
        with pytest.raises(InputError, match="pairs was 12 and is 11"):
            trace_influence(found, texts(), world, dataclasses.replace(SETTINGS, pairs=11), tmp_path)


class TestInput:
    def test_a_query_needs_a_prompt_and_a_completion(self, tmp_path) -> None:
        path = tmp_path / "queries.tsv"
        path.write_text("language\tprompt\tcompletion\tid\neng\tthe dog\tsees the cat\t1\nspa\tel perro\tve el "
                        "gato\t1\n")
        assert read_queries(path).aligned
        path.write_text("language\tprompt\tcompletion\neng\tthe dog\t \n")
        with pytest.raises(InputError, match="query 0 .eng. has no completion"):
            read_queries(path)
        path.write_text("language\tprompt\neng\tthe dog\n")
        with pytest.raises(InputError, match="completion"):
            read_queries(path)
        with pytest.raises(InputError, match="too short"):
            halved(dataclasses.replace(mini_world(languages=("eng",)).rows(np.arange(1)), texts=("I",)), [0])

    def test_the_completion_is_what_follows_the_prompt(self) -> None:
        model = tiny_trace.model()
        asked = Queries(("the dog",), ("sees the cat",), np.array(["eng"]), np.array(["0"]), np.array(["0"]))
        tokens, scored = asked.tokens(model, 64)
        assert model.tokenizer.decode(tokens.ids[0][scored[0]]).strip() == "sees the cat"
        with pytest.raises(InputError, match="longer than 3 tokens"):
            asked.tokens(model, 3)

    def test_sentences_that_are_too_long_are_not_drawn(self) -> None:
        tokenizer, world = tiny_trace.model().tokenizer, mini_world(languages=("eng", "spa"))
        found = choose_sentences(world, 400, 0, tokenizer, 27)
        assert 3 <= found.each < 288 and tokenise(tokenizer, found.corpus.texts, 64).lengths.max() <= 27
        with pytest.raises(InputError, match="at most 8 tokens in all languages"):
            choose_sentences(world, 400, 0, tokenizer, 8)

    def test_texts_of_which_the_tokenizer_makes_nothing(self) -> None:
        blank = dataclasses.replace(texts().rows(np.arange(2)), texts=("", ""))
        with pytest.raises(InputError, match="makes nothing"):
            read_training(tiny_trace.model(), blank, 64)

    def test_an_encoder_has_no_loss_on_text(self) -> None:
        model = tiny_trace.model()
        other = dataclasses.replace(model, config=dataclasses.replace(model.config, causal=False))
        with pytest.raises(InputError, match="decoder"):
            run.require_fit(other, run.Asking(texts(), probe()), SETTINGS, print)

    def test_more_memory_than_there_is_is_said_first(self, monkeypatch) -> None:
        from xlingjax.influence import planning

        monkeypatch.setattr(planning, "device_memory", lambda: 10**5)
        said: list[str] = []
        with pytest.raises(InputError, match="the device has 100 kB"):
            run.require_fit(tiny_trace.model(), run.Asking(texts(), probe()), SETTINGS, said.append)
        assert "eigenbases" in said[0]

    @pytest.mark.parametrize("changes, said", [
        ({"components": 4}, "candidates is 0"), ({"shown": 9}, "shown is 9"), ({"permutations": 5}, "permutations")])
    def test_settings_that_do_not_fit(self, changes, said) -> None:
        with pytest.raises(InputError, match=said):
            dataclasses.replace(SETTINGS, **changes)
