"""Every reason for a rejection, a flag or an edit, one sentence each.

A reason is written `family:name`. The family is where it comes from; `why`, `show` and the reports print the sentence.
"""

REASONS: dict[str, str] = {
    # ingest: the row could not be read as a record; its raw text is kept in `extra`
    "ingest:broken_json": "The line or array element is not valid JSON.",
    "ingest:not_an_object": "The row is valid JSON but not an object with named fields.",
    "ingest:missing_field": "A field that the format needs is missing or null.",
    "ingest:wrong_type": "A field that the format defines holds another type of value.",
    "ingest:unknown_role": "A turn's role is none of system, user, assistant, tool, nor another known name of one.",
    "ingest:no_messages": "The conversation has no turns.",
    "ingest:bad_encoding": "The row holds bytes that are not valid UTF-8.",
    "ingest:bad_unicode": "The text holds half of a surrogate pair, which no UTF-8 file can store.",
    "ingest:too_deep": "The row is nested more deeply than any known format.",
    "ingest:too_long": "The row is longer than the limit for one row.",
    "ingest:wrong_columns": "The CSV line has more or fewer fields than the header.",
    "ingest:broken_csv": "The CSV line breaks the rules of quoting.",
    # rules
    "rule:no_user_turn": "Nobody asks anything: the conversation has no user turn with text.",
    "rule:no_assistant_turn": "Nobody answers: the conversation has no assistant turn, so there is nothing to learn.",
    "rule:empty_response": "An assistant turn is empty, so the model would learn to say nothing.",
    "rule:placeholder_response": "The response is a placeholder such as 'nooutput', 'N/A' or 'TODO' and not an answer.",
    "rule:response_equals_prompt": "The response repeats the prompt word for word.",
    "rule:last_turn_not_assistant": "The conversation ends with a question that nobody answers.",
    "rule:roles_out_of_order": "User and assistant do not take turns, which most chat templates refuse.",
    # flags of the rules: kept, for a person or a later rule to judge
    "flag:short_response": "The response has very few words; most such answers are right, some are not.",
    "flag:placeholder_context": "The context says that there is none ('N/A', 'no input').",
    "flag:url_only_context": "The context is only a web address, which the model cannot open.",
    "flag:response_equals_context": "The response repeats the context; right where there was nothing to change.",
    "flag:refusal": "The response reads like a refusal of an AI assistant.",
    # dedup
    "duplicate:exact": "The same prompt and response, letter for letter after case and spaces, as a row that is kept.",
    "overlap:exact": "The same prompt and response, after case and spaces, as a row of the other dataset.",
    "overlap:near": "Shares at least the threshold's part of its word n-grams with a row of the other dataset.",
    "duplicate:near": "Shares at least the threshold's part of its word n-grams with a row that is kept.",
    # split
    "leak:bridge": "A training row that new data joins to a cluster of the evaluation splits, which keep their rows.",
    # review
    "review:rejected": "A person decided to leave the row out.",
    # edits of normalize
    "edit:nfc": "Letters and accents joined to their composed form (Unicode NFC).",
    "edit:line_ends": "Line ends made uniform (LF).",
    "edit:control_characters": "Control and zero-width characters without a meaning removed.",
    "edit:surrounding_blanks": "Blanks before and after the text removed.",
    "edit:role_names": "Other names of roles replaced by system, user, assistant, tool.",
    "edit:empty_system": "A system prompt without text removed.",
    "edit:empty_context": "A context without text removed.",
}


def sentence(reason: str) -> str:
    """Say what a reason means; custom rules, which are not listed here, are described by their own configuration."""
    return REASONS.get(reason, "A rule of this dataset's own configuration.")
