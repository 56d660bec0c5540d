"""Cues: the words of a prompt that say which task it asks for (`curate.task`).

All are patterns of Rust's regex, on lower-case text. `[^.?!\n]*` stays within the sentence.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """A pattern (Rust regex, on lower-case text) that speaks for a task; `beside_text`: where the context is a text."""

    task: str
    name: str
    weight: float
    pattern: str
    beside_text: bool = False


OPENING = (
    r"^\W*(?:(?:please|kindly|now|can you|could you|would you|will you|i want you to|i need you to|i would like you to|"
    r"your task is to|the task is to|you are asked to|help me(?: to)?|try to|task:|instructions?:|q:|question:|"
    r"(?:given|using|based on|from|for|with|in|read|consider|according to) [^,.:?\n]{3,80}[,:.]),?\s*)+"
)
"""What may stand before the request itself: politeness, "Given the text below,"."""

_A_TEXT = (
    r"(?:following |given |above |provided |below |reference |input |entire |short |two |original )*"
    r"(?:texts?|passages?|paragraphs?|articles?|sentences?|documents?|story|stories|e-?mails?|reviews?|poems?|quotes?|"
    r"excerpts?|conversations?|inputs?|phrases?|essays?|statements?|reports?|dialogues?|words?|letters?|recipes?|"
    r"tweets?|lists?|notes|speech|titles?)"
)
_TO_MAKE_UP = (
    r"(?:poems?|haikus?|sonnet|limerick|ode|stor(?:y|ies)|tale|fable|novel|songs?|lyrics|rap|jingle|slogans?|taglines?|"
    r"mottos?|catch ?phrases?|jokes?|puns?|dialogues?|conversations?|screenplay|monologue|speech|letters?|e-?mails?|"
    r"essays?|articles?|blog|posts?|tweets?|advert\w*|ads?|headlines?|captions?|titles?|biography|paragraphs?|"
    r"sentences?|metaphors?|similes?|characters?|plot|scene|scenarios?|names?|ideas?|recipes?|menu|quotes?|toast|"
    r"greetings?|invitation|messages?|podcast|punchlines?|games?|itinerary|plans?|campaigns?|logo|products?|activities|"
    r"analog(?:y|ies)|arguments?|themes?|quiz|questions?|interview|statement|descriptions?|script|pitch|brochure|flyer|"
    r"design|resume|introduction|proposal|schedule|usernames?|poster|play|riddles?|acronym|report|profile|persona)"
)

CUES = (
    Cue("roleplay", "you are somebody", 4, r"^(?:you are|you're) (?:a|an|the|my) "),
    Cue(
        "roleplay",
        "act as",
        4,
        r"^act as\b|\b(?:to|you|and|must|should) act as\b|\b(?:pretend (?:to be|that|you)|role-?play|play the (?:role|"
        r"part) of)\b",
    ),
    Cue("roleplay", "imagine you are", 4, r"\b(?:imagine|picture) (?:that )?(?:you are|you're|yourself)\b"),
    Cue("summarising", "summarise", 5, r"^(?:summari[sz]e|sum up|condense|recap|outline the main|tl;?dr)\b"),
    Cue("summarising", "a summary", 4, r"\b(?:a|the|brief|short|in) summary\b|\bsummari[sz](?:e|ing|ation)\b"),
    Cue("summarising", "main points", 4, r"\b(?:main|key|central) (?:ideas?|points?|messages?|takeaways?|argument)\b"),
    Cue(
        "coding",
        "write a program",
        5,
        r"\b(?:write|create|implement|develop|build|construct|generate|debug|fix|refactor|optimi[sz]e|modify|edit|"
        r"provide|make|design|explain)\b[^.?!\n]*\b(?:code|programs?|functions?|scripts?|quer(?:y|ies)|"
        r"class|regex|regular expression|method|api|web ?pages?|html page|webpage|for loop|while loop|array|"
        r"unit tests?|json|data structure|shell command)\b",
    ),
    Cue(
        "coding",
        "a programming language",
        3,
        r"\b(?:python|javascript|java|typescript|sql|mysql|html5?|css|php|regex|bash|numpy|pandas|react(?:\.js)?|"
        r"node\.js|golang|kotlin|matlab|django|jquery|xml|github)\b|\bc\+\+|\bc#",
    ),
    Cue(
        "coding",
        "code",
        4,
        r"```|\bdef \w+\(|#include|public (?:static|class)|console\.log|</\w+>|<(?:html|div|body|p|h1)\b|"
        r"\bselect [\w*, ]+ from \w+(?:;| where| join| order by| group by)|print\(|\breturn \w+;|\bint \w+ =",
    ),
    Cue(
        "coding",
        "algorithm",
        2,
        r"^(?:write|create|design|develop|implement|construct|build|make)\b[^.?!\n]*\balgorithms?\b",
    ),
    Cue(
        "maths",
        "calculate",
        5,
        r"^(?:calculate|compute|solve|simplify the (?:expression|equation|fraction)|factor|differentiate|integrate|"
        r"multiply|divide|subtract|round|estimate the (?:area|volume|number))\b",
    ),
    Cue(
        "maths",
        "a term of mathematics",
        4,
        r"\b(?:equations?|square root|cube root|percent(?:age)? of|probability|derivative|integral|perimeter|"
        r"(?:surface )?area of (?:a|the)|volume of|radius|hypotenuse|slope|polynomial|matrix|prime (?:number|factor)s?|"
        r"fractions?|quotient|remainder|arithmetic|geometric (?:sequence|series|mean)|fibonacci|least common|"
        r"greatest common|standard deviation|(?:sum|product|mean|median|average) of (?:the )?(?:\d|numbers|"
        r"following num|"
        r"given num|all |two |three |these num)|decimal|binary number|roman numerals?|algebra\w*)\b",
    ),
    Cue(
        "maths",
        "a quantity is asked for",
        4,
        r"^(?:determine|find|work out|estimate|figure out|evaluate)\b[^.?!\n]*\b(?:speed|distance|average|total|sum|"
        r"difference|product|value of|angle|length|width|height|interest|cost|price|number of)\b[^.?!\n]*\d",
    ),
    Cue("maths", "a sum", 4, r"\d\s*(?:[+*×÷^]|=)\s*\(?\d|\d [-/] \d|\b\d*[xy]\s*(?:\^\d )?[-+=]\s*\d"),
    Cue(
        "maths",
        "how many, with numbers",
        3,
        r"\bhow (?:many|much|long|far|fast|old)\b[^.?!\n]*\d|\d[^.?!\n]*\bhow (?:many|much|long|far|fast|old)\b",
    ),
    Cue("maths", "convert a measure", 4, r"\bconvert\b[^.?!\n]*\d[^.?!\n]*\b(?:to|into)\b"),
    Cue(
        "classification",
        "classify",
        6,
        r"^(?:classify|categori[sz]e|label|tag|group|(?:assign|determine|decide|detect|identify|predict|tell me|check|"
        r"say|judge) "
        r"(?:whether|if|which)|(?:sort|group|divide|organi[sz]e|separate|put|place|split)\b[^.?!\n]*\binto\b[^.?!\n]*"
        r"\b(?:categor|groups?|class|types?))",
    ),
    Cue(
        "classification",
        "a class is asked for",
        4,
        r"\b(?:classify|classif(?:ied|ication)|categori[sz]e|sentiment|(?:which|what|right|correct|"
        r"appropriate) (?:category|class|genre)|spam|"
        r"(?:positive|negative|neutral),? or (?:negative|positive|neutral)|true or false|fact or opinion|"
        r"(?:identify|determine|detect|find|name|predict|what is|tell me) the (?:type|kind|genre|sentiment|tone|mood|"
        r"emotion|part of speech|"
        r"category|class|author's tone)|one of the following categories|type of (?:sentence|poem|speech|text))\b",
    ),
    Cue(
        "classification",
        "options",
        4,
        r"\b(?:options|choices|choose from|pick your answer from|possible answers)\s*:|"
        r"\n\s*\(?[ab1][.)]\)? .+\n\s*\(?[bc2][.)]",
    ),
    Cue(
        "classification",
        "which are x or y",
        4,
        r"^(?:which|identify|tell me|state|is|are|say)[^.?!\n]*\b(?:and which|or (?:a|an) \w+[:.?]|, or \w+[:.?]|"
        r"\w+ or \w+:)",
    ),
    Cue("extraction", "extract", 6, r"\b(?:extract|pull out|pick out|underline|highlight)\b"),
    Cue(
        "extraction",
        "find in a text",
        4,
        r"^(?:identify|find|list|name|select|spot|locate|count|detect|retrieve|what|which|who|when|where|"
        r"how)\b[^.?!\n]*"
        rf"\b(?:in|from|of|within|throughout|mentioned|according to|based on|used in) (?:the|this|these|that|a|"
        rf"each)? ?{_A_TEXT}\b",
    ),
    Cue(
        "extraction",
        "according to a text",
        4,
        rf"\b(?:according to|based on|given|from|using) (?:the|this|these|that|a)? ?{_A_TEXT}\b[^.?!\n]*"
        r"(?:\?|\b(?:what|which|who|when|where|how|list|identify|find|tell me|answer)\b)",
    ),
    Cue(
        "extraction",
        "a question beside a text",
        5,
        r"^(?:what|who|whom|whose|when|where|which|why|how|is|are|was|were|do|does|did|can|has|have|in what|"
        r"in which)\b",
        beside_text=True,
    ),
    Cue(
        "rewriting",
        "rewrite",
        5,
        r"^(?:rewrite|re-write|reword|rephrase|paraphrase|translate|edit|correct|proofread|revise|restate|rearrange|"
        r"reorder|re-?organi[sz]e|unscramble|punctuate|capitali[sz]e|shorten|transform|reverse|fix|refine|rework|"
        r"alphabeti[sz]e|sort|order|arrange|replace|substitute|swap|insert|remove|delete|combine|merge|modify|adapt|"
        r"format|"
        r"expand|convert|change|turn|improve|update|fill in|polish|simplify|invert)\b",
    ),
    Cue(
        "rewriting",
        "a sentence is to change",
        4,
        rf"^(?:add|make|put|take|use|complete|finish|correct|express|break|split|join|write)\b[^.?!\n]*\b(?:the|this|"
        rf"these) {_A_TEXT}\b",
    ),
    Cue(
        "rewriting",
        "a change to a text",
        3,
        r"\b(?:translat(?:e|ion)|paraphrase|rewrite|rewritten|rephrase|reword|grammar|grammatical(?:ly)?|misspelled|"
        r"spelling|punctuation|"
        r"active voice|passive voice|(?:past|present|future)(?: perfect)? tense|plural form|(?:said|say) in (?:french|"
        r"german|spanish)|"
        r"remove spaces|more (?:formal|concise|polite|natural))\b",
    ),
    Cue("rewriting", "a synonym", 3, r"\b(?:synonyms?|antonyms?) (?:for|of)\b|\bopposite of\b"),
    Cue(
        "reasoning",
        "compare or judge",
        4,
        r"^(?:analy[sz]e|evaluate|assess|compare|contrast|critique|criticize|debate|deduce|infer|predict|determine|"
        r"prove|"
        r"interpret|rank|judge|formulate a hypothesis|make a prediction|estimate|hypothesi[sz]e|justify)\b",
    ),
    Cue(
        "reasoning",
        "a puzzle or a conclusion",
        5,
        r"\b(?:puzzle|logical(?:ly)?|deduce|infer(?:red|ence)?|conclusions?|conclude|premise|hypothes[ie]s|entail(?:s|"
        r"ed|ment)?|"
        r"step[- ]by[- ]step reasoning|let's think|odd one out|does not belong|doesn't belong|fallac(?:y|ies)|"
        r"syllogism|what would happen|"
        r"solve (?:this|the following) riddle|cause and effect|pros and cons|pattern in|next (?:number|item|"
        r"word) in)\b",
    ),
    Cue(
        "creative",
        "make up a text",
        5,
        r"^(?:write|compose|create|generate|craft|draft|come up with|invent|make|produce|construct|design|develop|"
        r"give me|give|provide|tell|suggest|propose|think of|brainstorm|devise|formulate|imagine|pitch|prepare)\b"
        rf"[^.?!\n]*\b{_TO_MAKE_UP}\b",
    ),
    Cue(
        "creative",
        "make up",
        3,
        r"^(?:write|compose|create|craft|draft|come up with|invent|brainstorm|imagine|generate|design|construct|"
        r"make up|devise|develop|continue|propose|think of|produce|pitch)\b",
    ),
    Cue(
        "creative",
        "a genre",
        2,
        r"\b(?:poem|haiku|sonnet|limerick|short story|story about|song|lyrics|joke|slogan|tagline|fairy tale|creative|"
        r"imaginary|fictional)\b",
    ),
    Cue(
        "creative",
        "continue a text",
        4,
        r"\b(?:continue|finish|complete|start|end|ending|sequel)\b[^.?!\n]*\b(?:story|tale|poem|narrative|dialogue)\b|"
        r"^write (?:an article|a story|a review)",
    ),
    Cue(
        "factual",
        "a question",
        4,
        r"^(?:what|what's|who|whom|whose|when|where|which|why|how|is|are|was|were|do|does|did|can|could|should|has|"
        r"have|will|would|"
        r"in what|in which|at what|on what|to what|about how|if)\b",
    ),
    Cue(
        "factual",
        "explain or name",
        4,
        r"^(?:name|list|define|describe|explain|tell (?:me|us)|state|identify|find|recommend|discuss|mention|research|"
        r"share|"
        r"elaborate|show|search|locate|answer|outline|choose|select|pick|report|compile|look up|specify|teach|clarify|"
        r"illustrate|talk about)\b",
    ),
    Cue(
        "factual",
        "give or suggest",
        4,
        r"^(?:give|provide|suggest|offer|present|make a list|create a list|generate a list|generate (?:a|an|"
        r"\w+) (?:example|explanation|overview)|create a (?:timeline|comparison))\b",
    ),
    Cue("factual", "a question at the end", 2, r"\?\s*$"),
    Cue(
        "factual",
        "an explanation",
        2,
        r"\b(?:explanation|difference between|benefits of|advantages of|importance of|history of|concept of|"
        r"example of|facts? about|reasons? (?:why|for)|types of|tips|strategies|ways to)\b",
    ),
)
"""Weights are an order: 6 and 5 name the task, 4 is its usual opening or topic, 3 and 2 lean towards it."""
