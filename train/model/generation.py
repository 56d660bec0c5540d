"""A model's generation config, mended where transformers would not save it."""

from transformers import GenerationConfig, PreTrainedModel

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def mend(network: PreTrainedModel) -> str | None:
    """Mend a generation config that contradicts itself, as published ones do: transformers would not save it. Say so.

    What is unknown to make sense is reset to greedy answers with the model's own special tokens.
    """
    settings = getattr(network, "generation_config", None)
    if settings is None or _is_sound(settings):
        return None
    settings.do_sample = True  # the usual fault: temperature and top_p without it
    if _is_sound(settings):
        return "the model's generation_config has sampling settings without do_sample: set, so that it can be saved"
    ids = {name: getattr(settings, name) for name in TOKENS if _are_ids(getattr(settings, name))}
    network.generation_config = GenerationConfig(**ids)
    return "the model's generation_config contradicts itself: reset, so that it can be saved"


def _is_sound(settings: GenerationConfig) -> bool:
    try:
        settings.validate(strict=True)
    except (ValueError, TypeError):
        return False
    return all(_are_ids(getattr(settings, name)) for name in TOKENS)


def _are_ids(found: object) -> bool:
    return found is None or all(isinstance(i, int) for i in (found if isinstance(found, list) else [found]))  # pyright: ignore[reportUnknownVariableType] # somebody's JSON
