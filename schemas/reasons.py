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
    "rule:empty_code": "The response is an empty block of code, or only says where code should be.",
    "rule:merged_instruction": "A second numbered task, with its own input and output, goes on inside the response.",
    "rule:special_tokens": "The response has a chat format's special tokens written out as text, such as <|im_end|>.",
    "rule:template_residue": "A heading of a prompt template, such as '### Instruction:', stands inside the response.",
    "rule:provider_identity": "The response says that it is a named provider's model, such as ChatGPT of OpenAI.",
    # flags of the rules: kept, for a person or a later rule to judge
    "flag:short_response": "The response has very few words; most such answers are right, some are not.",
    "flag:placeholder_context": "The context is one bare word such as 'none', which may say that there is none.",
    "flag:url_only_context": "The context is only a web address, which the model cannot open.",
    "flag:missing_media": "The prompt points at a picture, a recording or a file that is not there.",
    "flag:missing_input": "The instruction names a text, a list or other material, and none is given.",
    "flag:response_equals_context": "The response repeats the context; right where there was nothing to change.",
    "flag:nonsense_prompt": "The prompt is mashed keys or marks, and no words.",
    "flag:refusal": "The response reads like a refusal of an AI assistant.",
    "flag:ai_self_reference": "The response speaks of itself as an AI where nobody asked, beyond a refusal.",
    "flag:knowledge_cutoff": "The response speaks of its own cut-off date, or of what it cannot look up.",
    "flag:speaker_leak": "Inside the response a user goes on to speak ('Human:'), as if the model talked to itself.",
    "flag:broken_fence": "A block of code is opened and not closed, and where it ends is not certain.",
    "flag:repeated_characters": "The same letter or mark comes twelve times or more in a row.",
    "flag:repeated_words": "The same words come over and over, one time right after the other.",
    "flag:repeated_sentences": "The same sentence comes five times or more.",
    "flag:wrong_arithmetic": "An equation between numbers does not hold.",
    "flag:options_copied": "A choice was asked for, and the response gives the whole list of options back.",
    "flag:unknown_option": "The response names an option that the prompt does not have.",
    "flag:unfinished": "The response stops in the middle of a sentence, or without the full stop of a long text.",
    "flag:cut_context": "The context stops without the end of a sentence, so that part of it may be missing.",
    "flag:other_language": "The response is in another language than the prompt, which asked for none.",
    # fixes of the rules
    "fix:placeholder_context": "A context that only said that there is none ('no input', 'N/A') removed.",
    "fix:edge_tokens": "Special tokens and template labels at the beginning or the end of the response removed.",
    "fix:mojibake": "Characters that had been read in a wrong encoding restored ('Ã©' is 'é').",
    "fix:open_fence": "A block of code that ran to the end of the response closed.",
    "fix:citation_marks": "Citation marks of an encyclopaedia, such as [3] and [citation needed], removed.",
    # pii
    "pii:secret": "The row holds a key, a token, a private key or a password.",
    "pii:card": "The row holds a payment card number.",
    "pii:iban": "The row holds a bank account number (IBAN).",
    "pii:ssn": "The row holds a US social security number.",
    "pii:email": "The row holds an e-mail address.",
    "pii:phone": "The row holds a phone number.",
    "pii:ip": "The row holds a public IP address.",
    "redact:secret": "Keys, tokens, private keys and passwords replaced by <SECRET>.",
    "redact:card": "Payment card numbers replaced by <CARD>.",
    "redact:iban": "Bank account numbers (IBAN) replaced by <IBAN>.",
    "redact:ssn": "US social security numbers replaced by <SSN>.",
    "redact:email": "E-mail addresses replaced by <EMAIL>.",
    "redact:phone": "Phone numbers replaced by <PHONE>.",
    "redact:ip": "Public IP addresses replaced by <IP>.",
    # dedup
    "duplicate:exact": "The same prompt and response, letter for letter after case and spaces, as a row that is kept.",
    "overlap:exact": "The same prompt and response, after case and spaces, as a row of the other dataset.",
    "overlap:near": "Shares at least the threshold's part of its word n-grams with a row of the other dataset.",
    "duplicate:near": "Shares at least the threshold's part of its word n-grams with a row that is kept.",
    # score
    "duplicate:semantic": "Means nearly the same as a row that is kept, by the cosine similarity of their embeddings.",
    # decontaminate
    "contaminated:eval": "The row holds an item of an evaluation set, so a score on that set would mean nothing.",
    # select
    "select:licence": "The licence or the terms of its source do not clearly allow commercial use.",
    "select:not_sampled": "The row was not among those that were drawn at random from its source.",
    "select:too_similar": "The row is more similar than allowed to one that was taken before it.",
    "select:quota": "Enough rows of its source or its task were taken before it.",
    "select:not_in_top": "The row stands below the share of rows that was asked for.",
    "select:over_budget": "The budget of rows or tokens was spent on the rows that stand above it.",
    # split
    "leak:bridge": "A training row that new data joins to a cluster of the evaluation splits, which keep their rows.",
    # review
    "review:rejected": "People decided to leave the row out.",
    "review:corrected": "The last answer replaced by one that a reviewer wrote.",
    # what people find and no rule can: reviewers name it, no stage gives it
    "issue:wrong": "The answer says what is not true, or its sums, its reasoning or its code are wrong.",
    "issue:off_task": "The answer does not do what was asked.",
    "issue:incomplete": "The answer leaves out a part of what was asked.",
    "issue:poor_style": "The answer is badly written: mistakes, padding, or a tone that does not fit.",
    "issue:unsafe": "The answer could do harm, or it insults somebody.",
    "issue:unclear_prompt": "The prompt cannot be understood, or not be answered with what it gives.",
    # edits of normalize
    "edit:nfc": "Letters and accents joined to their composed form (Unicode NFC).",
    "edit:line_ends": "Line ends made uniform (LF).",
    "edit:control_characters": "Control and zero-width characters without a meaning removed.",
    "edit:surrounding_blanks": "Blanks before and after the text removed.",
    "edit:role_names": "Other names of roles replaced by system, user, assistant, tool.",
    "edit:empty_system": "A system prompt without text removed.",
    "edit:empty_context": "A context without text removed.",
    "edit:unwrapped": "The prompt format of another toolkit, which stood in the text, taken apart into turns.",
}


def sentence(reason: str) -> str:
    """Say what a reason means; custom rules, which are not listed here, are described by their own configuration."""
    return REASONS.get(reason, "A rule of this dataset's own configuration.")
