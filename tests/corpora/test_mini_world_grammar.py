"""Every language says what a grammar book says: sentences written by hand, none by the program."""

import pytest

from xlingjax.corpora.world.grammars import realise
from xlingjax.corpora.world.lexicon import LANGUAGES, forms, own_forms
from xlingjax.corpora.world.meaning import Meaning

EXPECTED = {
    # plural, past, adjectives on both sides, a person or animal as object
    Meaning("woman", "see", "dog", True, True, True, "", "old", "black", "yesterday", "garden"): {
        "eng": "yesterday the old women saw the black dogs in the garden",
        "spa": "ayer las mujeres viejas vieron a los perros negros en el jardín",
        "deu": "gestern sahen die alten Frauen die schwarzen Hunde im Garten",
        "rus": "вчера старые женщины увидели чёрных собак в саду",
        "tur": "dün yaşlı kadınlar bahçede siyah köpekleri gördüler",
        "fin": "eilen vanhat naiset näkivät mustat koirat puutarhassa",
        "hin": "कल बूढ़ी औरतों ने बगीचे में काले कुत्तों को देखा",
        "swh": "jana wanawake wazee waliwaona mbwa weusi bustanini"},
    # a numeral below five; a partitive object; से instead of को
    Meaning("brother", "love", "cat", True, True, False, "two"): {
        "eng": "two brothers love the cats",
        "spa": "dos hermanos aman a los gatos",
        "deu": "zwei Brüder lieben die Katzen",
        "rus": "два брата любят кошек",
        "tur": "iki ağabey kedileri seviyor",
        "fin": "kaksi veljeä rakastaa kissoja",
        "hin": "दो भाई बिल्लियों से प्यार करते हैं",
        "swh": "kaka wawili wanawapenda paka"},
    # the feminine numeral two
    Meaning("girl", "laugh", "", True, False, True, "two"): {
        "eng": "two girls laughed", "spa": "dos chicas se rieron", "deu": "zwei Mädchen lachten",
        "rus": "две девочки смеялись", "tur": "iki kız güldü", "fin": "kaksi tyttöä nauroi",
        "hin": "दो लड़कियाँ हँसीं", "swh": "wasichana wawili walicheka"},
    # a numeral from five on
    Meaning("student", "write", "letter", True, False, True, "five"): {
        "eng": "five students wrote the letter",
        "spa": "cinco alumnos escribieron la carta",
        "deu": "fünf Schüler schrieben den Brief",
        "rus": "пять учеников написали письмо",
        "tur": "beş öğrenci mektubu yazdı",
        "fin": "viisi oppilasta kirjoitti kirjeen",
        "hin": "पाँच विद्यार्थियों ने चिट्ठी लिखी",
        "swh": "wanafunzi watano waliandika barua"},
    # el agua; a plural-only class in Swahili
    Meaning("girl", "drink", "water", object_adjective="cold", time="every day"): {
        "eng": "every day the girl drinks the cold water",
        "spa": "cada día la chica bebe el agua fría",
        "deu": "jeden Tag trinkt das Mädchen das kalte Wasser",
        "rus": "каждый день девочка пьёт холодную воду",
        "tur": "her gün kız soğuk suyu içiyor",
        "fin": "joka päivä tyttö juo kylmän veden",
        "hin": "हर दिन लड़की ठंडा पानी पीती है",
        "swh": "kila siku msichana anakunywa maji baridi"},
    # a woman's name; Hindi agrees with the object
    Meaning("Anna", "build", "tower", False, True, True, "", "", "big", "", "square"): {
        "eng": "Emily built the big towers in the square",
        "spa": "Carmen construyó las torres grandes en la plaza",
        "deu": "Heike baute die großen Türme auf dem Platz",
        "rus": "Наташа построила большие башни на площади",
        "tur": "Ayşe meydanda büyük kuleleri inşa etti",
        "fin": "Päivi rakensi isot tornit aukiolla",
        "hin": "सीता ने चौक में बड़ी मीनारें बनाईं",
        "swh": "Rehema alijenga minara mikubwa uwanjani"},
    # animals in the plural: a singular verb in Turkish
    Meaning("lion", "chase away", "cow", True): {
        "eng": "the lions chase away the cow",
        "spa": "los leones ahuyentan a la vaca",
        "deu": "die Löwen verjagen die Kuh",
        "rus": "львы прогоняют корову",
        "tur": "aslanlar ineği kovuyor",
        "fin": "leijonat karkottavat lehmän",
        "hin": "शेर गाय को भगाते हैं",
        "swh": "simba wanamfukuza ng'ombe"},
    # no object
    Meaning("child", "sleep", past=True, place="room"): {
        "eng": "the child slept in the room",
        "spa": "el niño durmió en la habitación",
        "deu": "das Kind schlief im Zimmer",
        "rus": "ребёнок спал в комнате",
        "tur": "çocuk odada uyudu",
        "fin": "lapsi nukkui huoneessa",
        "hin": "बच्चा कमरे में सोया",
        "swh": "mtoto alilala chumbani"},
    # feminine persons, things in the plural
    Meaning("neighbour", "open", "window", True, True, True, "", "", "dirty", "", "house"): {
        "eng": "the neighbours opened the dirty windows in the house",
        "spa": "las vecinas abrieron las ventanas sucias en la casa",
        "deu": "die Nachbarinnen öffneten die schmutzigen Fenster im Haus",
        "rus": "соседки открыли грязные окна в доме",
        "tur": "komşular evde kirli pencereleri açtılar",
        "fin": "naapurit avasivat likaiset ikkunat talossa",
        "hin": "पड़ोसनों ने घर में गंदी खिड़कियाँ खोलीं",
        "swh": "majirani walifungua madirisha machafu nyumbani"},
    # a feminine object; an object marker before a vowel
    Meaning("boy", "call", "teacher", object_adjective="clever", time="now"): {
        "eng": "now the boy calls the clever teacher",
        "spa": "ahora el chico llama a la maestra inteligente",
        "deu": "jetzt ruft der Junge die kluge Lehrerin",
        "rus": "сейчас мальчик зовёт умную учительницу",
        "tur": "şimdi oğlan akıllı öğretmeni çağırıyor",
        "fin": "nyt poika kutsuu viisasta opettajaa",
        "hin": "अब लड़का होशियार अध्यापिका को बुलाता है",
        "swh": "sasa mvulana anamwita mwalimu mwerevu"},
    # a masculine animate object
    Meaning("woman", "praise", "poet", past=True, object_adjective="famous"): {
        "eng": "the woman praised the famous poet",
        "spa": "la mujer elogió al poeta famoso",
        "deu": "die Frau lobte den berühmten Dichter",
        "rus": "женщина похвалила знаменитого поэта",
        "tur": "kadın ünlü şairi övdü",
        "fin": "nainen kehui kuuluisaa runoilijaa",
        "hin": "औरत ने प्रसिद्ध कवि को सराहा",
        "swh": "mwanamke alimsifu mshairi maarufu"},
    # a neuter object; noun classes 5 and 2
    Meaning("farmer", "cut", "apple", True, object_adjective="red", time="evening"): {
        "eng": "in the evening the farmers cut the red apple",
        "spa": "al atardecer los granjeros cortan la manzana roja",
        "deu": "am Abend schneiden die Bauern den roten Apfel",
        "rus": "вечером фермеры режут красное яблоко",
        "tur": "akşamleyin çiftçiler kırmızı elmayı kesiyorlar",
        "fin": "illalla maanviljelijät leikkaavat punaisen omenan",
        "hin": "शाम को किसान लाल सेब काटते हैं",
        "swh": "jioni wakulima wanakata tufaha jekundu"},
    # a Hindi verb without the ergative; noun classes 11 and 10
    Meaning("girl", "forget", "song", False, True, True): {
        "eng": "the girl forgot the songs",
        "spa": "la chica olvidó las canciones",
        "deu": "das Mädchen vergaß die Lieder",
        "rus": "девочка забыла песни",
        "tur": "kız şarkıları unuttu",
        "fin": "tyttö unohti laulut",
        "hin": "लड़की गीत भूल गई",
        "swh": "msichana alisahau nyimbo"},
    # classes 7 and 11 with adjectives, present with a masculine plural subject
    Meaning("boy", "look for", "wall", True, False, False, "", "small", "white"): {
        "eng": "the small boys look for the white wall",
        "spa": "los chicos pequeños buscan el muro blanco",
        "deu": "die kleinen Jungen suchen die weiße Mauer",
        "rus": "маленькие мальчики ищут белую стену",
        "tur": "küçük oğlanlar beyaz duvarı arıyorlar",
        "fin": "pienet pojat etsivät valkoista muuria",
        "hin": "छोटे लड़के सफ़ेद दीवार ढूँढ़ते हैं",
        "swh": "wavulana wadogo wanatafuta ukuta mweupe"},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("meaning", EXPECTED, ids=lambda m: f"{m.subject} {m.verb} {m.object}")
def test_sentences_written_by_hand(language, meaning):
    assert realise(language, own_forms(language), meaning) == EXPECTED[meaning][language]


def test_common_forms_keep_number_and_the_agreement_around_them():
    # Russian (genitive), Turkish and Finnish count in the singular
    shared = frozenset(("guitar", "elephant", "two", "Maria"))
    meaning = Meaning("elephant", "see", "guitar", True, True, True, "two", "", "new")
    expected = {
        "eng": "2 elefants saw the new guitars", "spa": "2 elefants vieron las guitars nuevas",
        "deu": "2 elefants sahen die neuen guitars", "rus": "2 elefant увидели новые guitars",
        "tur": "2 elefant yeni guitars gördü", "fin": "2 elefant näki uudet guitars",
        "hin": "2 elefants ने नए guitars देखे", "swh": "elefants 2 waliona guitars mapya"}
    for language in LANGUAGES:
        words = forms(language, shared)
        assert realise(language, words, Meaning("Maria", "sleep")).startswith("Maria ")
        assert realise(language, words, meaning) == expected[language]
