"""What gives a language away: its commonest short words, and letters that few others write.

The words are articles, pronouns, prepositions, conjunctions, auxiliaries and question words, as any grammar lists them.
A language that is here only so that its texts are not taken for a neighbour's has no code of its own (`UNDECIDED`).
"""

WORDS: dict[str, str] = {
    # Latin script
    "en": """the of and to in is that it for was on are as with his they at be this have from or had by but what some
        we can out other were all there when up use your how said an each she which do their if will way about many
        then them would like so these her him has more could my than been who its now did get may i you he not no
        our me us because while should where why does such into through between after before also any very most only
        over just make made makes making take takes taken give gives given help helps find found need needs needed
        know known well good great best better new old first last long high low small large big different important
        following example examples number numbers people person man men woman world life day days year years time
        times thing things ways work working works part place right left house home family friend friends child
        children water food health money company business city country state school students student story book
        books word words sentence list name names question answer write written create created generate describe
        explain identify provide provided using used called includes include including become became without within
        during since until both much every several often always never even still however although though too own
        same another against around under again those off being having doing going come comes gets keep let look
        looking feel think want see say says show shows tell read learn play start end set able based related main
        two three four five ten car care dont don't doesn't didn't can't isn't it's i'm won't son sin era die war
        hat pour plus sans ale pod mint fit tale here ever shall might must cannot sure next together else something
        someone everyone anything nothing upon per via among towards across along toward whose whom yes
        los las el van von""",  # the last ones stand in names, such as Los Angeles
    "de": """der die und den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er
        hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur
        bis mehr durch man sein wurde ich du wir ihr wenn kann können was wer diese dieser dieses mein ihre ihren
        unter gegen vom schon sehr hier dann doch kein keine ihm ihn muss soll weil damit sowie zwischen jetzt immer
        gibt bitte jeden jeder tag jahr zeit leben gut beste beispiel einige viele alle andere erste zwei drei würde
        wurden uns nie""",
    "fr": """le la les de des du et un une est en que qui dans pour pas sur au aux avec par plus ce cette ces il elle
        ils elles on nous vous je tu ne se son sa ses leur leurs mais ou où comme sont être a été ont avoir fait
        faire peut si même tout tous aussi bien sans entre après avant très donc car quel quelle quand dont c'est y
        mon ma mes ton votre notre suis sommes êtes était étaient pouvez comment pourquoi jour jours année vie temps
        toujours jamais chaque faut fois bon meilleur ainsi pendant alors moins beaucoup nos vos voici exemple deux
        trois n d l qu s j m t""",
    "es": """el la los las de del y que en un una es por con para no se su sus al lo como más pero le ya o este esta
        esto ese esa cuando muy sin sobre también me hasta hay donde quien desde todo todos nos durante uno les ni
        contra otros fue ha han ser son está están era eran tiene tienen puede pueden porque entre si mi mis tu tus
        yo él ella ellos nosotros usted qué cómo cuál estoy soy eres nunca cada año años vez bueno mejor día días
        hacer hace dos tres mucho mucha muchos tiempo vida así además mientras aunque entonces siempre parte nuestro
        nuestra nuestros siguiente ejemplo ahora después antes allí aquí tarde""",
    "pt": """o a os as de do da dos das e que em um uma é por com para não se sua seu suas seus ao aos na no nas nos
        como mais mas foi ele ela eles elas são tem têm ser está estão era muito também já ou quando sem pelo pela
        até isso isto este esta esse essa entre depois sobre mesmo você vocês eu nós meu minha me lhe pode podem
        porque onde quem qual estou sou nosso nossa nossos cada ano anos vez bom melhor dia dias fazer faz dois três
        muitos tempo vida assim além enquanto embora então sempre nunca parte seguinte exemplo agora antes ali aqui
        tarde dela dele""",
    "it": """il lo la i gli le di del della dei delle dello degli e che è un una uno in nel nella nei nelle non per
        con su sul sulla da dal dalla si come più ma o anche sono ha hanno era erano essere questo questa questi
        queste quello quella suo sua suoi loro al alla ai alle ci se chi cosa quando dove perché molto tra fra io tu
        lui lei noi voi mi ti può possono ho sei siamo tutto tutti così giorno anno tempo vita sempre mai ogni fare
        fa buono migliore esempio due tre stato stata molti mentre allora nostro nostra ancora anni l""",
    "nl": """de het een van en in is dat op te zijn voor met die niet aan er om ook als maar dan bij nog uit door
        wordt worden naar heeft hebben was of over deze dit hij ze zij wij ik je jij u kan kunnen meer veel geen wat
        wie hoe waar wanneer tot tegen onder na zo al hun haar mijn onze uw moet moeten zal zullen werd tussen omdat
        wel daar hier""",
    "sv": """och i att det som en på är av för med till den har de inte om ett han men var jag vi du ni kan från så
        när också eller hon under efter bli blir vid där vad hur varför detta denna dessa sin sitt sina mig dig sig
        över mycket alla andra mer än skulle ska måste mellan utan här bara eftersom min mitt aldrig varit ha själv
        sätt exempel år gång får gör kunde använda människor henne hans hennes deras få går någon varje""",
    "da": """og i at det som en på er af for med til den har de ikke om et han men var jeg vi du kan fra så når også
        eller hun under efter blive bliver blev ved der hvad hvordan hvorfor dette denne disse sin sit sine mig dig
        sig over meget alle andre mere end ville skal må mellem uden her kun fordi min mit nogle hvor noget aldrig
        været have selv måde eksempel år gang får gør kunne skulle bruge mennesker hende hans hendes deres få går
        nogen hver""",
    "no": """og i at det som en på er av for med til den har de ikke om et han men var jeg vi du kan fra så når også
        eller hun under etter bli blir ble ved der hva hvordan hvorfor dette denne disse sin sitt sine meg deg seg
        over mye alle andre mer enn ville skal må mellom uten her bare fordi min mitt noen hvor noe ikkje eg ein eit
        vere dei frå korleis kva aldri vært ha selv måte eksempel år gang får gjør kunne skulle bruke mennesker
        henne hans hennes deres få går hver veldig""",
    "pl": """i w na z do się nie to że jest o jak po od za co przez dla ale są oraz lub tym tego ten ta te być było
        był była były może można jego jej ich który która które którzy gdy kiedy gdzie dlaczego tylko już także
        również bardzo przed między pod nad bez ja ty my wy on ona ono oni mnie mi ciebie czy ponieważ więc jeśli""",
    "cs": """a v na se je že o z do s to i za pro od po jako by ve ale si k jsou nebo která který které jeho jejich
        byl byla bylo být při až také jen než není co jak když kde kdy proč může mohou mezi pod nad bez já ty my vy
        on ona ono oni mě mi tě protože pokud tento tato toto jsem jste jsme velmi více""",
    "ro": """și de în a la cu pe un o este nu că să din care pentru mai se ce sunt sau dar fi ca au fost prin după
        acest această acestea aceste lui ei lor am ai are avea dacă când unde cum cine foarte între fără despre până
        eu tu noi voi el ea îl îi le mi ne vă poate pot trebuie al ale sa său""",
    "tr": """ve bir bu için ile da de çok en daha olarak gibi ama ne o ben sen biz siz onlar kadar olan sonra önce
        her var yok mi mı mu mü değil ya veya ise ki şey nasıl neden nerede zaman bunu buna onun benim senin olduğu
        olduğunu oldu olur eder etti tarafından arasında üzerinde içinde ancak çünkü hem""",
    "fi": """ja on ei se että hän oli mutta kun ovat tai olla myös ne jos niin kuin minä sinä me te he tämä mitä
        missä miksi miten joka jotka sen sekä ole voi voivat hyvin vain enemmän kanssa jälkeen ennen välillä koska
        nyt siellä tässä olen olet olemme minun sinun hänen heidän mukaan kuitenkin sitten vielä joten siksi vaan
        aina päivä vuosi aika paljon monta esimerkiksi näin meidän""",
    "hu": """a az és hogy nem is egy ez meg de van volt csak már mint ha még vagy el ki be fel le minden nagyon ezt
        azt ami aki mert lehet kell után között alatt szerint által én te ő mi ti ők hogyan miért hol mikor több sok
        lesz vannak voltak pedig amely azonban ezek azok ezért mindig nap év idő jó például így vagyok volna""",
    "vi": """và của là có cho được không trong một các với những người này để khi từ đã ra về như cũng nhiều sẽ vào
        tôi bạn chúng họ nó anh chị đến nhưng hay hoặc vì nếu thì mà rất phải làm gì nào thế tại trên dưới sau trước
        giữa bởi đó đây hơn nhất""",
    "id": """yang dan di dari untuk dengan pada adalah ini itu dalam tidak akan ke juga oleh sebagai atau saya kamu
        anda dia mereka kami kita ada bisa karena dapat telah sudah lebih seperti ketika jika harus sangat antara
        setelah sebelum apa siapa bagaimana mengapa kapan dimana banyak bahwa tersebut namun secara""",
    "ms": """yang dan di dari untuk dengan pada adalah ini itu dalam tidak akan ke juga oleh sebagai atau saya kamu
        anda dia mereka kami kita ada boleh kerana dapat telah sudah lebih seperti apabila jika mesti sangat antara
        selepas sebelum apa siapa bagaimana mengapa bila banyak bahawa tersebut ialah daripada kepada""",
    "ca": """el la els les de del dels i que en un una és per amb a no es seu seva al als com més però o aquest
        aquesta aixo això quan molt sense sobre també fins hi ha on qui des tot tots entre si meu meva jo ell ella
        nosaltres són està estan perquè què pot poden tenen té ser era""",
    "gl": """o a os as de do da dos das e que en un unha é por con para non se súa seu ao á na no nas nos como máis
        pero foi el ela eles elas son ten teñen ser está estaba moi tamén xa ou cando sen polo pola ata isto este
        esta ese entre despois sobre mesmo eu nós meu miña pode poden porque onde quen""",
    "sk": """a v na sa je že o z do s to i za pre od po ako by vo ale si k sú alebo ktorá ktorý ktoré jeho ich bol
        bola bolo byť pri až tiež len než nie čo keď kde kedy prečo môže môžu medzi pod nad bez ja ty my vy on ona
        ono oni ma mi ťa pretože ak tento táto toto som ste sme veľmi viac""",
    "sl": """in je v na se da so za z pa ki ne ali tudi po od ko kot bi pri do ni iz si to ta te sem smo ste bil bila
        bilo biti lahko njegov njihov zelo več med pod nad brez jaz ti mi vi on ona oni ker kaj kje kdaj zakaj kako
        če""",
    "hr": """i u je se na da za od su s o kao ne a iz koji koja koje što ili ali to po nije bio bila bilo biti sam
        smo ste može mogu između pod nad bez ja ti mi vi on ona oni jer kad kada gdje gde zašto kako ako ovaj ova
        ovo vrlo više također takođe njegov njihov već samo""",
    "af": """die en van 'n is in het dat vir nie met op te wat om aan hulle ook as maar by nog uit deur word na was
        of hierdie dit hy sy ons ek jy kan meer baie geen wie hoe waar wanneer tot teen onder so hul my moet sal
        tussen omdat""",
    "et": """ja on ei et see ta oli aga kui või ka mis kes kas oma mina sina meie teie nad need selle seda olla olen
        oled oleme väga veel ainult pärast enne vahel sest nüüd seal siin kus miks kuidas kuna ning saab võib""",
    "lt": """ir yra į iš kad su ne tai kaip bet ar per po už nuo apie jis ji jie mes jūs aš tu buvo būti gali kai kur
        kodėl labai taip pat tik daugiau prieš tarp nes dėl savo šis ši kuris kuri""",
    "lv": """un ir uz no ka ar ne tas kā bet vai par pēc pie līdz viņš viņa viņi mēs jūs es tu bija būt var kad kur
        kāpēc ļoti arī tikai vairāk pirms starp jo savu šis šī kurš kura""",
    "sw": """ya na wa kwa ni katika za la cha hii huo hiyo kuwa au kama lakini pia yake wake zake mimi wewe yeye sisi
        wao ambayo ambao baada kabla kati kwamba hivyo sana tu nini nani wapi lini vipi""",
    "tl": """ang ng sa na at mga ay ito si ni kay para hindi may ako ikaw siya kami tayo sila ko mo niya namin natin
        nila kung dahil ngunit pero din rin lang lamang isang ano sino saan kailan bakit paano""",
    "la": """et in est non ad cum ut sed de qui quae quod ex si ab per esse sunt atque enim nec hoc haec ille ipse
        autem quam aut erat nunc ego tu nos vos eius eorum""",
    "eo": """la kaj de en estas al ne ke kun por mi vi li ŝi ĝi ni ili oni kiu kio kie kiam kial kiel tiu tio ĉi sed
        aŭ ankaŭ pli tre estis povas havas""",
    # Cyrillic script
    "ru": """и в не на что я с он как это по но из у за от то о для же к она они мы вы ты его её их был была было
        были быть есть или так также если когда где почему только ещё уже очень более между до после может можно
        который которая которые чтобы при бы мне меня нас вас этот эта эти потому наш своим своих день год время
        всегда хорошо например потом тоже со какой чем""",
    "uk": """і в не на що я з він як це по але із у за від то про для ж до вона вони ми ви ти його її їх був була
        було були бути є або так також якщо коли де чому тільки ще вже дуже більш між після може можна який яка які
        щоб при би мені мене нас вас цей ця ці тому та через наш день рік час завжди добре наприклад потім треба зі
        чим""",
    "be": """і ў не на што я з ён як гэта па але у за ад пра для ж да яна яны мы вы ты яго яе іх быў была было былі
        быць ёсць або так таксама калі дзе чаму толькі яшчэ ўжо вельмі больш паміж пасля можа які якая якія каб пры
        мне мяне гэты гэтая""",
    "bg": """и в не на че аз с той как това по но от у за до се да е са ще го я ги съм сме сте бил била било били
        бъде или така също ако когато къде защо само още вече много повече между след може който която които при ми
        ме ни ви този тази тези защото със във един една""",
    "sr": """и у је се на да за од су са о као не а из који која које што или али то по није био била било бити сам
        смо сте може могу између под над без ја ти ми ви он она они јер кад када где зашто како ако овај ова ово
        врло више такође његов њихов већ само""",
    "mk": """и во не на што јас со тој како ова по но од у за до се да е сум сме сте бил била било биде или така исто
        ако кога каде зошто само уште веќе многу повеќе меѓу може кој која кои при ми ме ни ви овој оваа овие
        бидејќи ќе ги го еден една""",
    # Arabic script
    "ar": """في من على إلى أن هذا هذه التي الذي عن مع لا ما هو هي كان كانت أو ثم قد كل بعد قبل بين عند حتى إذا لم لن
        ليس أنا أنت نحن هم ذلك تلك كما لكن غير أي هل كيف لماذا متى أين يكون تكون يمكن أكثر جدا""",
    "fa": """در و به از که این را با است برای آن یک خود تا بر هم نیز می شود شد های ها باید اما یا اگر هر من تو او ما
        شما آنها چه چرا کجا چگونه بود بودند دارد دارند کرد کند کنید است. هستند بین پس پیش بسیار""",
    "ur": """اور کے کی کا میں سے ہے کو پر نے یہ وہ ہیں کہ ایک بھی نہیں تھا تھی تھے ہو کر جو اس ان لیے ساتھ تو ہم آپ
        کیا کیوں کہاں کیسے گیا کرتا کرتے ہوتا ہوتی رہا بہت یا اگر""",
    # Devanagari script
    "hi": """के का की है में से और को पर ने यह वह हैं कि एक भी नहीं था थी थे हो कर जो इस उस लिए साथ तो हम आप मैं क्या
        क्यों कहाँ कैसे गया करता करते होता होती रहा बहुत या अगर""",
    "mr": """आणि आहे हे ते तो ती या त्या मध्ये नाही होते होता होती आहेत की एक पण साठी मी तू आम्ही तुम्ही काय का कुठे
        कसे त्यांनी असे असते असतात करून केले खूप किंवा जर च्या""",
    "ne": """र छ छन् को मा ले लाई यो त्यो हो एक पनि थियो थिए गर्न गर्छ भएको तर म तिमी हामी तपाईं के किन कहाँ कसरी
        धेरै वा यदि भने लागि बाट हुन्छ गरेको""",
}
"""Words of each language, as `detect` cuts them: lower case, letters and marks only (an apostrophe divides)."""

LETTERS: dict[str, str] = {
    "de": "ß",
    "es": "ñ¿¡",
    "pt": "ãõ",
    "fr": "œùû",
    "sv": "äåö",
    "fi": "äö",
    "da": "æøå",
    "no": "æøå",
    "pl": "ąęłńśźż",
    "cs": "ěřů",
    "ro": "șțăşţ",
    "tr": "ğış",
    "hu": "őű",
    "vi": "ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹơưđ",
    "ru": "ыэё",
    "uk": "іїєґ",
    "be": "ўыэ",
    "bg": "ъ",
    "sr": "јљњћђ",
    "mk": "јљњќѓѕ",
    "sk": "ľĺŕôä",
    "eo": "ĉĝĥĵŝŭ",
    "lv": "āēīūģķļņ",
    "lt": "ėįųūą",
    "fa": "پچژگ",
    "ur": "ٹڈڑںےہ",
    "ar": "ةىإأ",
    "mr": "ळ",
}
"""Letters that a language writes and most of its neighbours do not."""

UNDECIDED = ("af", "hr", "la", "eo")
"""Languages that are known so that nothing else is said: `hr` stands for Croatian, Bosnian and Serbian in Latin
letters, which short words cannot tell apart; Afrikaans shares its short words with English and Dutch, and names in
lists look like it; Latin and Esperanto stand in quotations and filler text (lorem ipsum)."""

SCRIPTS: dict[str, str] = {
    "ko": r"\p{Hangul}",
    "ja": r"\p{Hiragana}|\p{Katakana}",
    "zh": r"\p{Han}",
    "el": r"\p{Greek}",
    "he": r"\p{Hebrew}",
    "th": r"\p{Thai}",
    "ka": r"\p{Georgian}",
    "hy": r"\p{Armenian}",
    "bn": r"\p{Bengali}",
    "ta": r"\p{Tamil}",
    "te": r"\p{Telugu}",
    "gu": r"\p{Gujarati}",
    "pa": r"\p{Gurmukhi}",
    "kn": r"\p{Kannada}",
    "ml": r"\p{Malayalam}",
    "si": r"\p{Sinhala}",
    "km": r"\p{Khmer}",
    "lo": r"\p{Lao}",
    "my": r"\p{Myanmar}",
}
"""Scripts that one language writes nearly alone, each with the pattern of its letters."""
