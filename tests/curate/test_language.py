"""What `detect` says is right; where it cannot be sure it says nothing."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate.language
from curate.language import detect, lexicon
from curate.profiles import LETTERS, SCRIPTS, WORDS

SENTENCES = {
    "en": [
        "The ferry was late because of the fog, so we waited on the pier with our coffee.",
        "Please explain how a sourdough starter works and why it needs to be fed every day.",
        "She has never been to the island, but her brother goes there each summer.",
        "What should I do if my bicycle chain keeps falling off?",
    ],
    "de": [
        "Die Fähre kam zu spät, weil der Nebel über dem Hafen lag, und wir warteten mit unserem Kaffee.",
        "Bitte erkläre mir, wie ein Sauerteig funktioniert und warum er jeden Tag gefüttert werden muss.",
        "Ich war noch nie auf der Insel, aber mein Bruder fährt in jedem Sommer hin.",
    ],
    "fr": [
        "Le bateau était en retard à cause du brouillard, et nous avons attendu sur le quai avec notre café.",
        "Pouvez-vous m'expliquer comment on prépare un levain et pourquoi il faut le nourrir tous les jours ?",
        "Elle n'est jamais allée sur cette île, mais son frère y passe ses vacances.",
    ],
    "es": [
        "El barco llegó tarde por la niebla y esperamos en el muelle con nuestro café.",
        "¿Cómo se prepara una masa madre y por qué hay que alimentarla todos los días?",
        "Ella nunca ha estado en la isla, pero su hermano va allí cada verano.",
    ],
    "pt": [
        "O barco chegou tarde por causa do nevoeiro e nós esperamos no cais com o nosso café.",
        "Você pode me explicar como funciona o fermento natural e por que ele precisa ser alimentado?",
        "Ela nunca foi à ilha, mas o irmão dela não passa um verão sem ir até lá.",
    ],
    "it": [
        "Il traghetto era in ritardo per la nebbia e abbiamo aspettato sul molo con il nostro caffè.",
        "Puoi spiegarmi come funziona il lievito madre e perché deve essere nutrito ogni giorno?",
        "Non è mai stata sull'isola, ma suo fratello ci va tutte le estati.",
    ],
    "nl": [
        "De veerboot was te laat door de mist, dus wij wachtten op de kade met onze koffie.",
        "Kun je mij uitleggen hoe een zuurdesem werkt en waarom het elke dag gevoed moet worden?",
        "Zij is nog nooit op het eiland geweest, maar haar broer gaat er elke zomer naar toe.",
    ],
    "sv": [
        "Färjan var sen på grund av dimman, så vi väntade på kajen med vårt kaffe och mycket annat.",
        "Kan du förklara hur en surdeg fungerar och varför den måste matas varje dag?",
        "Jag har inte varit på ön, men min bror åker dit varje sommar eftersom han tycker om havet.",
    ],
    "da": [
        "Jeg ved ikke, hvad der er sket, men færgen blev forsinket af tågen, og vi måtte vente.",
        "Hvordan virker en surdej, og hvad sker der, når den ikke bliver passet af nogen?",
        "Hun har aldrig været på øen, men hendes bror tager derhen efter skole, når han kan blive hele ugen.",
    ],
    "no": [
        "Jeg vet ikke hva som har skjedd, men ferjen ble forsinket av tåken, og noen måtte vente.",
        "Hvordan virker en surdeig, og hvorfor må den mates etter noen timer uten mel?",
        "Eg veit ikkje kva som har hendt, men ferja var sein, og dei måtte vente.",
    ],
    "pl": [
        "Prom spóźnił się przez mgłę, więc czekaliśmy na nabrzeżu z naszą kawą.",
        "Czy możesz wyjaśnić, jak działa zakwas i dlaczego trzeba go dokarmiać?",
        "Ona nigdy nie była na wyspie, ale jej brat jeździ tam co roku.",
    ],
    "cs": [
        "Trajekt měl zpoždění kvůli mlze, a tak jsme čekali na molu se svou kávou.",
        "Můžeš mi vysvětlit, jak kvásek funguje a proč se musí každý den krmit?",
        "Nikdy nebyla na tom ostrově, ale její bratr tam jezdí, když může, protože má rád moře.",
    ],
    "ro": [
        "Feribotul a întârziat din cauza ceții, iar noi am așteptat pe chei cu cafeaua noastră.",
        "Poți să-mi explici cum funcționează maiaua și de ce trebuie să fie hrănită?",
        "Ea nu a fost niciodată pe insulă, dar fratele ei merge acolo în fiecare vară.",
    ],
    "tr": [
        "Vapur sis yüzünden geç kaldı, biz de kahvemizle iskelede bekledik ama çok soğuktu.",
        "Ekşi mayanın nasıl çalıştığını ve neden her gün beslenmesi gerektiğini açıklar mısın?",
        "O adaya hiç gitmedi ama kardeşi her yaz oraya gider ve çok sever.",
    ],
    "fi": [
        "Lautta oli myöhässä sumun takia, joten me odotimme laiturilla ja joimme kahvia.",
        "Voitko selittää, miten hapanjuuri toimii ja miksi se on ruokittava joka päivä?",
        "Hän ei ole käynyt saarella, mutta hänen veljensä menee sinne, kun on kesä.",
    ],
    "hu": [
        "A komp késett a köd miatt, ezért a mólón vártunk, és kávét ittunk.",
        "El tudod magyarázni, hogy hogyan működik a kovász, és miért kell minden nap etetni?",
        "Ő még nem volt a szigeten, de az öccse minden nyáron odamegy.",
    ],
    "vi": [
        "Chuyến phà đến muộn vì sương mù nên chúng tôi đã đợi trên bến với cà phê.",
        "Bạn có thể giải thích vì sao phải nuôi men mỗi ngày không?",
        "Cô ấy chưa bao giờ đến hòn đảo đó, nhưng anh trai của cô ấy đến đó mỗi mùa hè.",
    ],
    "id": [
        "Kapal itu terlambat karena kabut, jadi kami menunggu di dermaga dengan kopi.",
        "Bisakah kamu menjelaskan bagaimana ragi bekerja dan mengapa harus diberi makan?",
        "Dia tidak bisa datang karena sudah sangat lelah setelah perjalanan dari pulau itu.",
    ],
    "ru": [
        "Паром опоздал из-за тумана, и мы долго ждали на пристани, потому что было ещё холодно.",
        "Объясните, пожалуйста, как работает закваска и почему её нужно кормить каждый день.",
        "Она никогда не была на острове, но её брат ездит туда, когда может.",
    ],
    "uk": [
        "Пором запізнився через туман, і ми чекали на пристані з нашою кавою.",
        "Поясніть, будь ласка, як працює закваска і чому її треба годувати щодня.",
    ],
    "bg": [
        "Фериботът закъсня заради мъглата и ние чакахме на кея със своето кафе, защото нямаше къде да се скрием.",
        "Тя не е била на острова, но брат ми ходи там, когато може, защото го обича.",
    ],
    "ar": [
        "تأخرت العبارة بسبب الضباب، لذلك انتظرنا على الرصيف مع القهوة.",
        "لماذا يجب أن نفعل هذا كل يوم؟ هل هو ضروري؟",
    ],
    "fa": ["کشتی به خاطر مه دیر رسید و ما در اسکله با قهوه منتظر بودیم.", "چرا باید این کار را هر روز انجام داد؟"],
    "ur": ["دھند کی وجہ سے کشتی دیر سے آئی اور ہم نے کافی کے ساتھ انتظار کیا۔", "یہ کام روز کیوں کرنا ضروری ہے؟"],
    "hi": ["कोहरे के कारण नाव देर से आई और हम कॉफी के साथ इंतज़ार करते रहे।", "यह काम हर दिन क्यों करना होता है?"],
    "ja": ["霧のためフェリーが遅れたので、私たちはコーヒーを飲みながら待ちました。", "パン種はどのように働きますか。"],
    "zh": ["因为有雾，渡轮晚点了，我们在码头上喝着咖啡等待。", "請解釋為什麼這個麵團每天都要餵養。"],
    "ko": ["안개 때문에 배가 늦어서 우리는 커피를 마시며 기다렸습니다.", "왜 매일 먹이를 주어야 하나요?"],
    "el": ["Το πλοίο άργησε λόγω της ομίχλης και περιμέναμε στην προβλήτα με τον καφέ μας."],
    "he": ["המעבורת איחרה בגלל הערפל, ולכן חיכינו על המזח עם הקפה שלנו."],
    "th": ["เรือข้ามฟากมาสายเพราะหมอก เราจึงรอที่ท่าเรือพร้อมกาแฟ"],
}

SILENT = {
    "nothing": ["", "   ", "\n"],
    "a single word": ["Yes", "negative", "Guten", "Bonjour!", "はい"],
    "numbers": ["42", "3.14 + 2.71 = 5.85", "1, 2, 3, 5, 8, 13", "12:30 - 14:45"],
    "names": ["Leonardo da Vinci", "Los Angeles, Santa Fe, El Paso", "Ludwig van Beethoven, Clara Schumann"],
    "code": [
        "for i in range(10):\n    if i not in seen and i > 2:\n        print(seen[i], end='')",
        "SELECT name, SUM(total) FROM orders WHERE (day >= '2024-01-01') GROUP BY name;",
        "<div class=\"a\"><p id='to'>{{ of }}</p></div>",
    ],
    "two languages": [
        "If it rains, we can read. Cuando llueve, también se puede leer, pero no todos los niños quieren.",
        "Это значит: the ferry was late because of the fog, и мы ждали на пристани.",
        "因为有雾，渡轮晚点了 — the ferry was late because of the fog, so we had to wait on the pier.",
    ],
    "languages that cannot be told apart": [
        "Det er en god idé.",
        "Brod je kasnio zbog magle, a mi smo čekali na obali.",
    ],
    "filler text": [
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor ut labore et dolore."
    ],
    "formulas": ["α + β = γ, and π r²"[:9], "∑ x_i / n = μ"],
}


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in SENTENCES.items() for text in texts])
def test_a_sentence_is_of_its_language(code: str, text: str) -> None:
    assert detect(pl.Series([text])).to_list() == [code]


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in SILENT.items() for text in texts])
def test_nothing_is_said_where_it_is_not_certain(why: str, text: str) -> None:
    assert detect(pl.Series([text])).to_list() == [None], why


def test_a_text_alone_and_among_others_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series([text for group in (SENTENCES | SILENT).values() for text in group] + [None])
    whole = detect(texts)
    assert [detect(pl.Series([text], dtype=pl.String)).item() for text in texts] == whole.to_list()
    monkeypatch.setattr(curate.language, "CHUNK_ROWS", 7)
    assert detect(texts).equals(whole)


def test_case_blanks_and_marks_around_words_decide_nothing() -> None:
    texts = [text for code in ("en", "de", "fr", "ru") for text in SENTENCES[code]]
    changed = [f"**{text.upper()}**".replace(" ", "\n") for text in texts]
    assert detect(pl.Series(changed)).to_list() == detect(pl.Series(texts)).to_list()


def test_fenced_code_is_left_out() -> None:
    answer = "You can do this with a loop, which is the shortest way:\n```python\n" + "x[i] = {y}; " * 30 + "\n```"
    assert detect(pl.Series([answer, answer.replace("```", "")])).to_list() == ["en", None]


def test_an_english_text_may_name_foreign_things() -> None:
    text = "The Chinese word for hello is 你好, and in Spain they say señor or ¿qué tal? when they meet on the street."
    assert detect(pl.Series([text])).item() == "en"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=60)), max_size=6))
def test_any_text_gives_a_code_or_null_for_every_row(texts: list[str | None]) -> None:
    found = detect(pl.Series(texts, dtype=pl.String))
    assert (found.dtype, len(found)) == (pl.String, len(texts))
    assert set(found.drop_nulls()) <= {*WORDS, *SCRIPTS}


def test_profiles_hold_lower_case_words_and_every_telling_letter_belongs_to_a_profile() -> None:
    words = lexicon().words.get_column("word")
    assert words.str.to_lowercase().equals(words)
    assert set(LETTERS) <= set(WORDS)


@pytest.mark.realdata
def test_on_real_english_rows_hardly_any_is_called_something_else(
    real_rows: dict[str, list[dict[str, object]]],
) -> None:
    """What is called another language was read: in the Alpaca sample 10 answers, each rightly; in Dolly's none."""
    for source, other in (("alpaca", ["de"] + ["es"] * 3 + ["fr"] * 5 + ["ja"]), ("dolly", [])):
        answers = pl.Series([row["messages"][1]["content"] for row in real_rows[source]])  # pyright: ignore[reportIndexIssue] # a list of turns
        found = detect(answers).drop_nulls()
        assert sorted(found.filter(found != "en")) == other
        assert len(found) > 0.73 * len(answers)
