"""The words of the embedded corpus: labels written by hand, agreement, and texts that are the same as ever."""

import hashlib

import numpy as np
import pytest

from xlingjax.corpora.world import LANGUAGES, mini_world, mini_world_words
from xlingjax.corpora.world.annotated import FEATURES, TASKS
from xlingjax.corpora.world.grammars import CLAUSES, text_of
from xlingjax.corpora.world.lexicon import forms, own_forms
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import OBJECT, SUBJECT, head, otherwise, shown
from xlingjax.corpora.world.world import tell
from xlingjax.errors import InputError

# SHA-256 of the texts, one a line, as they were before words had labels.
TEXTS = {
    ("probe", 0.15, "matched"): "4402e648727b8d253c3aa39aa7cec8d0caec192071771758659a056a0c3b77a1",
    ("probe", 0.0, "matched"): "e9ef47622b5d477ad4246748c9b9275febda4d4397b99e02cd656b82a7420f07",
    ("probe", 0.3, "matched"): "3fec702a5ae5f886cb4837de174a9312dd72010ea26a3897856ed4bd06082f1a",
    ("train", 0.15, "matched"): "d015cbb843a7d256bbc7d98b241fddfe0b2e30818529bcec1599cf989aa64933",
    ("train", 0.0, "matched"): "8e9c0bf40ef2e72c8bfa40e8f296702168ace367620ede721a23d6e0510bfede",
    ("train", 0.3, "matched"): "ed44303edda57cba333f6ca91d2762d893bd1c9bf59489be30370acd2cfedee0",
    ("train", 0.15, "unlike"): "d6e74da47d3c421635d85a4ade43a127e64a9d9a77983878197b112ca75fec2c"}

WOMEN = Meaning("woman", "see", "dog", True, True, True, "", "old", "black", "yesterday", "garden")
GIRL = Meaning("girl", "drink", "water", object_adjective="cold", time="every day", place="river")
BROTHERS = Meaning("brother", "love", "cat", True, True, False, "two")

DEF, SING, PLUR, PRES, PAST = "Definite=Def", "Number=Sing", "Number=Plur", "Tense=Pres", "Tense=Past"
FEM, MASC, NEUT = "Gender=Fem", "Gender=Masc", "Gender=Neut"
BY_HAND = {
    "eng": (f"""yesterday NOUN {SING}; the DET {DEF}; old ADJ; women NOUN {PLUR}; saw VERB {PAST}; the DET {DEF};
            black ADJ; dogs NOUN {PLUR}; in ADP; the DET {DEF}; garden NOUN {SING}""",
            f"""every DET; day NOUN {SING}; the DET {DEF}; girl NOUN {SING}; drinks VERB {SING} Person=3 {PRES};
            the DET {DEF}; cold ADJ; water NOUN {SING}; by ADP; the DET {DEF}; river NOUN {SING}"""),
    "spa": (f"""ayer ADV; las DET {DEF} {FEM} {PLUR}; mujeres NOUN {FEM} {PLUR}; viejas ADJ {FEM} {PLUR};
            vieron VERB {PLUR} Person=3 {PAST}; a ADP; los DET {DEF} {MASC} {PLUR}; perros NOUN {MASC} {PLUR};
            negros ADJ {MASC} {PLUR}; en ADP; el DET {DEF} {MASC} {SING}; jardín NOUN {MASC} {SING}""",
            f"""cada DET; día NOUN {MASC} {SING}; la DET {DEF} {FEM} {SING}; chica NOUN {FEM} {SING};
            bebe VERB {SING} Person=3 {PRES}; el DET {DEF} {SING}; agua NOUN {FEM} {SING}; fría ADJ {FEM} {SING};
            junto ADV; al ADP {DEF} {MASC} {SING}; río NOUN {MASC} {SING}"""),
    "deu": (f"""gestern ADV; sahen VERB {PLUR} {PAST}; die DET {DEF}; alten ADJ {PLUR}; Frauen NOUN {FEM} {PLUR};
            die DET {DEF} {PLUR}; schwarzen ADJ; Hunde NOUN {MASC} {PLUR}; im ADP Case=Dat {DEF} {SING};
            Garten NOUN {MASC} {SING}""",
            f"""jeden DET Case=Acc {MASC} {SING}; Tag NOUN {MASC} {SING}; trinkt VERB {SING} Person=3 {PRES};
            das DET {DEF} {NEUT} {SING}; Mädchen NOUN {NEUT}; das DET {DEF} {NEUT} {SING}; kalte ADJ {SING};
            Wasser NOUN {NEUT} {SING}; am ADP Case=Dat {DEF} {SING}; Fluss NOUN {MASC} {SING}"""),
    "rus": (f"""вчера ADV; старые ADJ Case=Nom {PLUR}; женщины NOUN Case=Nom {FEM} {PLUR}; увидели VERB {PLUR} {PAST};
            чёрных ADJ {PLUR}; собак NOUN {FEM} {PLUR}; в ADP; саду NOUN {MASC} {SING}""",
            f"""каждый DET {MASC} {SING}; день NOUN {MASC} {SING}; девочка NOUN Case=Nom {FEM} {SING};
            пьёт VERB {SING} Person=3 {PRES}; холодную ADJ Case=Acc {FEM} {SING}; воду NOUN Case=Acc {FEM} {SING};
            у ADP; реки NOUN Case=Gen {FEM} {SING}"""),
    "tur": (f"""dün ADV; yaşlı ADJ; kadınlar NOUN Case=Nom {PLUR}; bahçede NOUN Case=Loc {SING}; siyah ADJ;
            köpekleri NOUN Case=Acc {PLUR}; gördüler VERB {PLUR} Person=3 {PAST}""",
            f"""her DET; gün NOUN Case=Nom {SING}; kız NOUN Case=Nom {SING}; nehir NOUN Case=Nom {SING};
            kıyısında NOUN Case=Loc {SING}; soğuk ADJ; suyu NOUN Case=Acc {SING};
            içiyor VERB {SING} Person=3 {PRES}"""),
    "fin": (f"""eilen ADV; vanhat ADJ Case=Nom {PLUR}; naiset NOUN Case=Nom {PLUR}; näkivät VERB {PLUR} Person=3 {PAST};
            mustat ADJ Case=Nom {PLUR}; koirat NOUN Case=Nom {PLUR}; puutarhassa NOUN Case=Ine {SING}""",
            f"""joka DET; päivä NOUN Case=Nom {SING}; tyttö NOUN Case=Nom {SING}; juo VERB {SING} Person=3 {PRES};
            kylmän ADJ Case=Gen {SING}; veden NOUN Case=Gen {SING}; joen NOUN Case=Gen {SING};
            rannalla NOUN Case=Ade {SING}"""),
    "hin": (f"""कल ADV; बूढ़ी ADJ {FEM}; औरतों NOUN Case=Acc {FEM} {PLUR}; ने ADP; बगीचे NOUN Case=Acc {MASC} {SING};
            में ADP; काले ADJ {MASC}; कुत्तों NOUN Case=Acc {MASC} {PLUR}; को ADP; देखा VERB {MASC} {SING} {PAST}""",
            f"""हर DET; दिन NOUN {MASC}; लड़की NOUN {FEM} {SING}; नदी NOUN {FEM} {SING}; के ADP;
            किनारे NOUN Case=Acc {MASC} {SING}; ठंडा ADJ Case=Nom {MASC} {SING}; पानी NOUN {MASC} {SING};
            पीती VERB {FEM} {PRES}; है AUX {SING} {PRES}"""),
    "swh": (f"""jana ADV; wanawake NOUN NounClass=Bantu2 {PLUR}; wazee ADJ NounClass=Bantu2 {PLUR};
            waliwaona VERB NounClass=Bantu2 {PLUR} Person=3 {PAST}; mbwa NOUN NounClass=Bantu9;
            weusi ADJ NounClass=Bantu2 {PLUR}; bustanini NOUN Case=Loc""",
            f"""kila DET; siku NOUN NounClass=Bantu9; msichana NOUN NounClass=Bantu1 {SING};
            anakunywa VERB NounClass=Bantu1 {SING} Person=3 {PRES}; maji NOUN NounClass=Bantu6; baridi ADJ;
            mtoni NOUN Case=Loc""")}  # fmt: skip


def written(words) -> list[str]:
    return [" ".join([word.form, word.upos, *(f"{k}={v}" for k, v in sorted(shown(word).items()))]) for word in words]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("which", [0, 1])
def test_every_word_is_labelled_as_by_hand(language, which) -> None:
    words = CLAUSES[language](own_forms(language), (WOMEN, GIRL)[which])
    assert written(words) == [" ".join(item.split()) for item in BY_HAND[language][which].split(";")]


@pytest.mark.promise
@pytest.mark.parametrize("settings", TEXTS, ids=str)
def test_texts_are_what_they_were(settings) -> None:
    split, dose, topics = settings
    texts = mini_world(split, dose=dose, topics=topics).texts
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == TEXTS[settings]


@pytest.fixture(scope="module")
def bank():
    return mini_world_words()


def test_the_treebank_is_the_corpus(bank) -> None:
    corpus = mini_world()
    assert bank.texts == corpus.texts
    assert (bank.languages == corpus.languages).all() and (bank.documents == corpus.documents).all()
    assert tuple(bank.labels) == TASKS and len(bank.row) == sum(len(text.split()) for text in corpus.texts)
    for i in range(0, len(bank.row), 101):
        start, end = bank.span[i]
        text = bank.texts[bank.row[i]]
        assert text[start:end].lower() == bank.form[i] and text[end:end + 1] in ("", " ")
    assert (bank.labels["upos"] != "").all()
    assert mini_world_words().fingerprint == bank.fingerprint != mini_world_words(seed=1).fingerprint


def test_each_language_has_the_features_it_marks_and_no_others(bank) -> None:
    language = bank.languages[bank.row]
    found = {name: {feature: set(bank.labels[feature][language == name]) - {""} for feature in FEATURES}
             for name in LANGUAGES}
    assert {name for name in LANGUAGES if found[name]["Gender"]} == {"spa", "deu", "rus", "hin"}
    assert {name for name in LANGUAGES if found[name]["Case"]} == {"deu", "rus", "tur", "fin", "hin", "swh"}
    assert {name for name in LANGUAGES if found[name]["NounClass"]} == {"swh"}
    assert {name for name in LANGUAGES if found[name]["Definite"]} == {"eng", "spa", "deu"}
    for name in LANGUAGES:
        assert found[name]["Number"] == {"Sing", "Plur"} and found[name]["Tense"] == {"Pres", "Past"}
    of = lambda form: set(bank.labels["Number"][bank.form == form])
    assert of("sheep") <= {""} and of("dog") == {"Sing"} and of("dogs") == {"Plur"}


def test_order_is_that_of_the_grammars(bank) -> None:
    language = bank.languages[bank.row]
    of = lambda name, task: set(bank.labels[task][language == name]) - {""}
    for name, info in LANGUAGES.items():
        assert of(name, "order:obj") == {"before" if info.order == "SOV" else "after"}
        assert of(name, "order:nsubj") == ({"before", "after"} if name == "deu" else {"before"})
    more = mini_world_words(tasks=("order:amod", "order:nummod"))
    home = more.languages[more.row]
    for name in LANGUAGES:
        assert set(more.labels["order:amod"][home == name]) - {""} == {"after" if name in ("spa", "swh") else "before"}
    assert set(more.labels["order:nummod"][home == "swh"]) == {"", "after"}


@pytest.mark.promise
@pytest.mark.parametrize("dose", [0.0, 0.3])
@pytest.mark.parametrize("language", LANGUAGES)
def test_words_agree(language, dose) -> None:
    """Whatever two words of a noun phrase or its verb show, they show the same; and there is a root in each."""
    compared = 0
    for part in tell("probe", dose, 0, (language,), 288, "matched"):
        for words, m in zip(part.sentences(), part.meanings):
            assert [word.relation for word in words].count("root") == 1
            for phrase, noun, plural in ((SUBJECT, m.subject, m.subject_plural), (OBJECT, m.object, m.object_plural)):
                shared = [shown(word) for word in words if word.phrase == phrase and word.relation != "case"]
                for feature in ("Number", "Gender", "Case"):
                    if m.numeral and phrase == SUBJECT and feature != "Gender":
                        continue  # numerals ask for other numbers and cases than what they count has
                    values = [one[feature] for one in shared if feature in one]
                    compared += len(values) > 1
                    if noun not in ("milk", "water") or language != "swh":  # plural classes without a number
                        assert len(set(values)) <= 1, (text_of(words), feature, values)
                    if feature == "Number" and values and language != "swh":
                        assert values[0] == ("Plur" if plural else "Sing"), text_of(words)
    assert compared > 100 or language in ("tur", "eng")


def test_a_numeral_governs_by_the_rules_of_its_language() -> None:
    subject = {name: shown(next(word for word in CLAUSES[name](own_forms(name), BROTHERS) if word.relation == "nsubj"))
               for name in LANGUAGES}
    verb = {name: shown(next(word for word in CLAUSES[name](own_forms(name), BROTHERS) if word.relation == "root"))
            for name in LANGUAGES}
    number = lambda found: {name: values.get("Number") for name, values in found.items()}
    assert number(subject) == {"eng": "Plur", "spa": "Plur", "deu": "Plur", "rus": "Sing", "tur": "Sing", "fin": "Sing",
                               "hin": None, "swh": None}
    assert number(verb) == {name: "Sing" if name in ("tur", "fin") else "Plur" for name in LANGUAGES}
    assert subject["fin"]["Case"] == "Par"


def test_common_forms_do_not_decline_for_case() -> None:
    words = CLAUSES["rus"](forms("rus", frozenset(("guitar", "two"))), Meaning("girl", "buy", "guitar", past=True))
    assert words[-1].form == "guitar" and shown(words[-1]) == {"Gender": "Fem", "Number": "Sing"}


def test_another_value_is_written_as_the_grammar_would() -> None:
    words = {word.form: word for word in CLAUSES["deu"](own_forms("deu"), GIRL)}
    assert otherwise(words["trinkt"], "Number") == {"Plur": "trinken"}
    assert otherwise(words["trinkt"], "Tense") == {"Past": "trank"}
    assert otherwise(words["kalte"], "Number") == {"Plur": "kalten"}
    assert otherwise(words["das"], "Gender") == {"Masc": "den", "Fem": "die"}, "the object's"
    assert otherwise(words["Tag"], "Number") == {}, "fixed phrases stay as they are"
    bread = CLAUSES["eng"](own_forms("eng"), Meaning("girl", "eat", "bread"))
    assert otherwise(bread[-1], "Number") == {}, "no plural"
    assert [head(bread, i) for i in range(len(bread))] == [1, 2, None, 4, 2]


@pytest.mark.parametrize(("arguments", "says"), [
    ({"tasks": ("Mood",)}, "'Mood' applies to no word"), ({"tasks": ("order:advcl",)}, "'order:advcl' applies to no"),
    ({"languages": ("eng",), "tasks": ("Gender",)}, "'Gender' applies to no word of eng"),
    ({"languages": ("xxx",)}, "does not speak 'xxx'")])
def test_bad_requests(arguments, says) -> None:
    with pytest.raises(InputError, match=says):
        mini_world_words(sentences=12, **arguments)


def test_labels_are_strings_for_every_word(bank) -> None:
    for values in bank.labels.values():
        assert values.shape == bank.row.shape and np.issubdtype(values.dtype, np.str_)
