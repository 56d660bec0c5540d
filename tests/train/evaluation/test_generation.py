"""Answers that are drawn, said piece by piece, or too large for the memory there is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from schemas.errors import ModelError
from tests.train.evaluation.test_answers import prompts_of
from tests.train.world import make_records
from train.evaluation import generation
from train.evaluation.generation import Answer, Sampling, answered, generate, stream
from train.model.trainee import Trainee
from train.step import attention
from train.text.template import Template

Prompts = list[list[int]]


@pytest.fixture
def prompts(template: Template) -> Prompts:
    return prompts_of(make_records(10), template)


def drawn(trainee: Trainee, template: Template, prompts: Prompts, sampling: Sampling, *, batch: int = 1 << 20) -> Any:
    found: dict[int, Answer] = {}
    for part in answered(trainee, template, prompts, new_tokens=8, batch_tokens=batch, sampling=sampling):
        found |= part
    return [found[i].text for i in range(len(prompts))]


def test_a_drawn_answer_depends_on_its_prompt_and_the_seed_alone(
    trainee_of: Callable[..., Trainee], template: Template, prompts: Prompts
) -> None:
    """Batched, alone, in another order: the same answers. Another seed gives others."""
    trainee = trainee_of()
    together = drawn(trainee, template, prompts, Sampling(1.0, 0.95, 3))
    assert drawn(trainee, template, prompts, Sampling(1.0, 0.95, 3), batch=0) == together
    assert drawn(trainee, template, prompts[::-1], Sampling(1.0, 0.95, 3)) == together[::-1]
    assert drawn(trainee, template, prompts, Sampling(1.0, 0.95, 4)) != together
    assert drawn(trainee, template, prompts, Sampling()) != together


def test_the_same_prompt_asked_again_draws_anew(
    trainee_of: Callable[..., Trainee], template: Template, prompts: Prompts
) -> None:
    found = drawn(trainee_of(), template, [prompts[0]] * 6, Sampling(1.0, 1.0, 3))
    assert len(set(found)) > 1
    pieces = Sampling(1.0, 1.0, 3)  # a long file is asked piece by piece
    halves = [drawn(trainee_of(), template, [prompts[0]] * 3, pieces) for _ in range(2)]
    assert [*halves[0], *halves[1]] == found


def test_draws_follow_the_models_probabilities() -> None:
    """Gumbel noise: of 4,000 draws of 0.7, 0.2, 0.1 as many of each as chance allows (three standard errors)."""
    odds = torch.tensor([0.7, 0.2, 0.1])
    noise = generation._Gumbel([5], torch.device("cpu"))
    counts = torch.zeros(3)
    for _ in range(4000):
        counts[int(noise(torch.zeros(1, 1), odds.log()[None]).argmax())] += 1
    assert torch.allclose(counts / 4000, odds, atol=3 * 0.5 / 4000**0.5)


def test_what_top_p_leaves_out_is_never_drawn() -> None:
    noise = generation._Gumbel([5], torch.device("cpu"))
    scores = torch.tensor([[0.0, -torch.inf]])
    assert all(int(noise(torch.zeros(1, 1), scores).argmax()) == 0 for _ in range(200))


def test_the_pieces_of_a_streamed_answer_are_the_answer(
    trainee_of: Callable[..., Trainee], template: Template, prompts: Prompts
) -> None:
    trainee = trainee_of()
    expected = generate(trainee, template, prompts, new_tokens=10, batch_tokens=1 << 20)
    for prompt, answer in zip(prompts, expected, strict=True):
        pieces: list[str] = []
        assert stream(trainee, template, prompt, new_tokens=10, on_text=pieces.append) == answer
        assert "".join(pieces) == answer.text
    assert all(a.tokens <= 10 for a in expected)


def test_generation_uses_the_cache_and_not_the_packed_attention(
    trainee_of: Callable[..., Trainee], template: Template, prompts: Prompts
) -> None:
    """After the prompt, each pass reads one token; and our attention, which has no cache, is back afterwards."""
    trainee, read = trainee_of(), list[int]()

    def watch(module: Any, _: Any, kwargs: Any) -> None:
        read.append(kwargs["input_ids"].shape[1])
        assert module.config._attn_implementation != attention.NAME

    hook = trainee.network.register_forward_pre_hook(watch, with_kwargs=True)
    generate(trainee, template, prompts[:1], new_tokens=5, batch_tokens=0)
    hook.remove()
    assert read[0] == len(prompts[0])
    assert set(read[1:]) == {1}
    assert trainee.network.config._attn_implementation == attention.NAME


def test_where_memory_runs_out_batches_are_halved_and_the_answers_stay_the_same(
    trainee_of: Callable[..., Trainee], template: Template, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, told = trainee_of(), list[str]()
    expected = generate(trainee, template, prompts, new_tokens=6, batch_tokens=0)
    plain = generation._generate
    sizes: list[int] = []

    def tight(*args: Any, **settings: Any) -> Any:
        sizes.append(len(args[2]))
        if len(args[2]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*args, **settings)

    monkeypatch.setattr(generation, "_generate", tight)
    found: dict[int, Answer] = {}
    for part in answered(trainee, template, prompts, new_tokens=6, batch_tokens=1 << 20, say=told.append):
        found |= part
    assert [found[i] for i in range(len(prompts))] == expected
    assert sizes[0] == len(prompts)
    assert max(sizes[3:]) <= 3
    assert all("out of memory: batches of" in line for line in told)
    monkeypatch.setattr(generation, "_generate", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("x")))
    with pytest.raises(ModelError, match=r"a prompt of \d+ tokens alone takes more memory than CPU.*--new-tokens"):
        list(answered(trainee, template, prompts, new_tokens=6, batch_tokens=1 << 20))
