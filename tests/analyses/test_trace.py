"""The main job on checkpoints of seconds: what it finds, says, writes and refuses."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import tiny_trace
import xarray as xr

from xlingjax.analyses.results import read_tree, write_tree
from xlingjax.analyses.trace import trace
from xlingjax.analyses.trace.tables import EXPERTISE, expertise_table, summary_table
from xlingjax.analyses.trace.usable import shuffled, usable_concepts
from xlingjax.errors import InputError
from xlingjax.report.trace_page import write_report
from xlingjax.report.trace_words import NOTHING, summary

slow = [pytest.mark.slow, pytest.mark.promise]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four checkpoints: a sound one, its duplicate, one with a weight that is NaN, one all NaN."""
    folder = tmp_path_factory.mktemp("trace")
    sound = tiny_trace.model()
    sources = tiny_trace.checkpoints(
        folder / "model",
        {
            "step0": sound,
            "step10": sound,
            "step20": tiny_trace.with_nan(sound),
            "step30": tiny_trace.all_nan(sound),
        },
    )
    said: list[str] = []
    with pytest.warns(UserWarning, match="step20: NaN or infinite responses at mlp.up"):
        tree = trace(
            sources, tiny_trace.corpus(), tiny_trace.SETTINGS, folder / "trace", say=said.append
        )
    return folder, sources, tree, said


class TestTrace:
    pytestmark = slow

    def test_the_plan_comes_before_the_checkpoints(self, run):
        _, _, _, said = run
        assert "trace of 4 checkpoints" in said[0] and "disk" in said[0] and "batches" in said[0]
        assert [line.split(":")[0] for line in said[1:]] == [
            "1/4 step0",
            "2/4 step10",
            "3/4 step20",
            "4/4 step30",
        ]

    def test_health_names_the_duplicate_and_the_nan(self, run):
        _, _, tree, _ = run
        health = tree["health"].to_dataset(inherit=False)
        status = dict(zip(health["checkpoint"].values.tolist(), health["status"].values.tolist()))
        assert status["step0"] == "ok"
        assert status["step10"] == "same weights as step0"
        assert "1 non-finite weights" in status["step20"] and "mlp/up/kernel[1]" in status["step20"]
        assert "same weights" not in status["step20"]
        assert "embed/norm/scale" in status["step30"] and "loss is not a number" in status["step30"]
        assert health["nonfinite_weights"].values.tolist() == [0, 0, 1, 16]
        assert health["nonfinite_responses"].values[:2].tolist() == [0, 0]
        assert 0 < health["nonfinite_responses"].values[2] < health["nonfinite_responses"].values[3]
        assert health["tokens_seen"].values.tolist() == [0, 1000, 2000, 3000]
        assert (
            np.isfinite(health["loss"].values[:2]).all()
            and np.isnan(health["loss"].values[2:]).all()
        )

    def test_the_tree_has_what_is_promised(self, run):
        _, _, tree, _ = run
        groups = {"own_form", "feature"}
        assert {
            "health",
            "probe",
            "experts",
            "claims",
            "matched",
            "ladder",
            "calls",
            "neurons",
        } == set(tree.children)
        for kind in ("experts", "claims", "matched", "ladder", "calls"):
            assert set(tree[kind].children) == groups, kind
        experts = tree["experts/own_form"]
        assert experts.sizes["checkpoint"] == 4 and experts.sizes["language"] == 3
        assert experts["expert"].dtype == np.int32
        assert tree["matched/feature"]["adjustment"].values.tolist() == ["raw", "length"]
        assert tree["ladder/own_form"].attrs["checkpoint"] == "step0", "the last sound checkpoint"
        assert json.loads(tree.attrs["settings"])["permutations"] == 4
        assert tree.attrs["corpus_fingerprint"] == tiny_trace.corpus().fingerprint

    def test_what_is_not_finite_is_no_expert_and_no_number(self, run):
        _, _, tree, _ = run
        experts = tree["experts/own_form"].isel(checkpoint=3)
        assert (experts["expert"] == -1).all() and np.isnan(experts["expert_ap"]).all()
        assert np.isnan(tree["probe"]["accuracy"].values[3]).all()
        assert np.isnan(tree["probe"]["accuracy"].values[2, 2]).all(), "above the NaN weight"
        assert np.isfinite(tree["probe"]["accuracy"].values[2, :2, 0]).all(), "below it"

    def test_only_sound_checkpoints_make_claims(self, run):
        _, _, tree, _ = run
        band = tree["claims/feature"]["band"].values
        assert np.isnan(band[:, 1:]).all() and not np.isnan(band[:, 0]).all()

    def test_equal_weights_give_equal_numbers(self, run):
        _, _, tree, _ = run
        for group in ("experts/own_form", "experts/feature", "probe"):
            one = tree[group].to_dataset(inherit=False)
            first, second = (one.isel(checkpoint=i, drop=True) for i in (0, 1))
            xr.testing.assert_equal(first, second)

    def test_expertise_has_the_columns_of_ml_selfcond(self, run):
        folder, _, tree, _ = run
        corpus = tiny_trace.corpus()
        expertise_table(tree, corpus, folder / "trace", folder / "expertise.csv")
        with open(folder / "expertise.csv", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        assert (
            tuple(reader.fieldnames or ())
            == EXPERTISE
            == ("ap", "off_mean", "on_p50", "on_p90", "layer", "unit", "uuid", "concept", "group")
        )
        cells = len(corpus.concepts) * len(corpus.language_names)
        assert len(rows) == cells * tiny_trace.SETTINGS.k
        assert {row["group"] for row in rows} == set(tiny_trace.LANGUAGES)
        assert all(row["layer"].startswith("transformer.h.") for row in rows)
        assert all(
            0 < float(row["ap"]) <= 1 and float(row["on_p50"]) <= float(row["on_p90"])
            for row in rows
        )

    def test_the_report_is_one_self_contained_page(self, run):
        folder, _, tree, _ = run
        page = write_report(tree, folder)
        text = page.read_text(encoding="utf-8")
        assert page.name == "report.html" and text.count("<section") >= 8
        assert not re.search(r'(src|href)="(?!data:|#)', text) and "@import" not in text
        assert "same weights as step0" in text and "non-finite weights" in text
        assert "at the last sound checkpoint" in text and tree.attrs["last_sound"] == "step0"
        assert str(folder) not in text, "no path of this machine"
        assert list(folder.glob("*.png"))

    def test_the_table_has_a_row_a_checkpoint_and_group(self, run):
        _, _, tree, _ = run
        lines = summary_table(tree).splitlines()
        assert len(lines) == 1 + 4 * 2 and lines[0].split()[0] == "checkpoint"
        assert len(list(csv.reader(summary_table(tree, as_csv=True).splitlines()))) == 9

    def test_the_result_is_read_back_as_written(self, run, tmp_path):
        _, _, tree, _ = run
        write_tree(tmp_path / "result.nc", tree)
        again = read_tree(tmp_path / "result.nc")
        assert {node.path.strip("/") for node in tree.subtree if node.has_data} == set(again) | (
            {""} & set(again)
        )
        xr.testing.assert_equal(
            again["experts/feature"]["overlap"],
            tree["experts/feature"].to_dataset(inherit=False)["overlap"],
        )

    def test_another_setting_or_corpus_is_refused_by_name(self, run):
        folder, sources, _, _ = run
        corpus, settings = tiny_trace.corpus(), tiny_trace.SETTINGS
        with pytest.raises(InputError, match=r"settings\.k was 5 and is 6.*workdir"):
            trace(sources, corpus, dataclasses.replace(settings, k=6), folder / "trace")
        with pytest.raises(InputError, match=r"corpus was .[0-9a-f]+. and is"):
            trace(sources, corpus.with_concepts(corpus.concepts[:3]), settings, folder / "trace")

    @pytest.mark.parametrize("name", ["step10/checkpoint.nc", "final-*.nc"])
    def test_a_truncated_file_is_named(self, run, name):
        folder, sources, _, _ = run
        (path,) = (folder / "trace").glob(name)
        whole = path.read_bytes()
        try:
            path.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(InputError, match=re.escape(str(path)) + " is damaged.*delete it"):
                trace(sources, tiny_trace.corpus(), tiny_trace.SETTINGS, folder / "trace")
        finally:
            path.write_bytes(whole)

    def test_permuted_labels_report_nothing_first(self, run, tmp_path):
        folder, sources, _, _ = run
        settings = dataclasses.replace(
            tiny_trace.SETTINGS, shuffle=True, probe=None, permutations=10
        )
        tree = trace(sources[:1], tiny_trace.corpus(), settings, tmp_path / "trace")
        words = summary(tree)
        assert words[0] == NOTHING and "shuffled" in tree.attrs["corpus"]
        page = write_report(tree, tmp_path).read_text(encoding="utf-8")
        assert "Nothing found" in page.split("<section")[0]


def test_concepts_without_enough_sentences_are_left_out_and_named():
    corpus = tiny_trace.corpus()
    labels = corpus.labels.copy()
    labels[corpus.languages == "rus", 0] = 0  # no positive in Russian
    labels[corpus.languages == "eng", 1] = 1  # no negative in English
    kept, dropped = usable_concepts(dataclasses.replace(corpus, labels=labels), 1)
    assert dropped == list(corpus.concepts[:2]) and kept.concepts == corpus.concepts[2:]
    with pytest.raises(
        InputError, match=r"no concept .* has 4 positive .*\(the best has 0\).*--minimum"
    ):
        usable_concepts(dataclasses.replace(corpus, labels=labels).with_concepts(dropped), 4)


def test_shuffling_moves_whole_sentences_alike_in_all_languages():
    corpus = tiny_trace.corpus()
    moved = shuffled(corpus, 0)
    assert not np.array_equal(moved.labels, corpus.labels)
    by_parallel = [
        dict(
            zip(
                moved.parallel[moved.languages == name].tolist(),
                map(tuple, moved.labels[moved.languages == name].tolist()),
            )
        )
        for name in corpus.language_names
    ]
    assert by_parallel[0] == by_parallel[1] == by_parallel[2]
    assert (moved.labels.sum(0) == corpus.labels.sum(0)).all()


def test_one_language_is_refused(tmp_path):
    with pytest.raises(InputError, match="has one language, eng; sharing needs two"):
        trace([], tiny_trace.corpus().language("eng"), tiny_trace.SETTINGS, tmp_path)


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(InputError, match="corpus 'mini_world.*' is empty; it needs sentences"):
        trace([], tiny_trace.corpus().rows(np.zeros(0, int)), tiny_trace.SETTINGS, tmp_path)


def test_an_unknown_unseen_language_is_refused(tmp_path):
    settings = dataclasses.replace(tiny_trace.SETTINGS, unseen=("xxx",))
    with pytest.raises(InputError, match="language 'xxx' is not in corpus"):
        trace([], tiny_trace.corpus(), settings, tmp_path)
