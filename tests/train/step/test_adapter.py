"""An adapted layer as one operator gives what peft's layer gives; where it is not plain LoRA, peft's own does it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.world import small_llama
from train.model.adapters import LoraConfig, get_peft_model
from train.model.trainee import Trainee
from train.step import adapter
from train.step.adapter import AdaptedLinear, adapted_linear, adapted_linear_backward

TOKENS = 23


class Two(nn.Module):
    """Two layers that share an input, one of them with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20), nn.Linear(12, 20, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) * self.second(x)


def adapted(*, fused: bool, dtype: torch.dtype = torch.float32, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["first", "second"], **settings)
    if fused:
        config._register_custom_module({nn.Linear: AdaptedLinear})  # pyright: ignore[reportPrivateUsage] # as adapt does
    made = get_peft_model(Two().to(dtype), config)  # pyright: ignore[reportArgumentType] # any module will do
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    return made


def outcome(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output and every gradient of a loss in which no two outputs weigh the same."""
    x = x.clone().requires_grad_()
    y = model(x)
    (y.float() * torch.linspace(0.5, 1.5, y.numel()).view_as(y)).sum().backward()
    assert x.grad is not None
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {"y": y.detach(), "x": x.grad, **grads}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with one entry for each time that the operator ran."""
    made: list[int] = []

    def counted(*args: Any) -> Any:
        made.append(1)
        return adapted_linear(*args)

    monkeypatch.setattr(adapter, "adapted_linear", counted)
    return made


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12)])
def test_output_and_gradients_are_those_of_peft(
    settings: dict[str, Any], shape: tuple[int, ...], calls: list[int]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found, wanted = (outcome(adapted(fused=fused, **settings), x) for fused in (True, False))
    assert len(calls) == 2
    assert found.keys() == wanted.keys()
    assert sum("lora" in name for name in found) == 4
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_under_autocast_it_is_nearer_to_fp32_than_peft_is_or_as_near(calls: list[int]) -> None:
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    exact = outcome(adapted(fused=False), x)
    with torch.autocast("cpu", torch.bfloat16):
        found, peft = (outcome(adapted(fused=fused, dtype=torch.bfloat16), x.bfloat16()) for fused in (True, False))
    assert len(calls) == 2
    for name, value in exact.items():
        assert found[name].dtype == peft[name].dtype
        off, usual = ((one[name].float() - value).norm() / value.norm() for one in (found, peft))
        assert off < max(0.02, 1.5 * float(usual))


@pytest.mark.filterwarnings("ignore:.lora_bias")  # one of the layers has no bias
@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.3}, {"lora_bias": True}])
def test_what_is_not_plain_goes_the_way_of_peft(settings: dict[str, Any], calls: list[int]) -> None:
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(1))
    models = [adapted(fused=fused, **settings).train() for fused in (True, False)]
    torch.manual_seed(3)
    found = outcome(models[0], x)
    torch.manual_seed(3)
    wanted = outcome(models[1], x)
    assert not calls
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def test_merged_disabled_and_hooked_layers_go_the_way_of_peft(calls: list[int]) -> None:
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(1))

    def watch(*_: object) -> None:
        """Change nothing, and stand there."""

    model: Any = adapted(fused=True)
    plain: Any = adapted(fused=False)
    with model.disable_adapter(), plain.disable_adapter():
        torch.testing.assert_close(model(x), plain(x))
    handle = model.base_model.model.first.base_layer.register_forward_hook(watch)
    model(x)
    assert len(calls) == 1  # of the second layer
    handle.remove()
    before = model(x)
    model.merge_adapter()
    calls.clear()
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    assert not calls


def test_a_layer_that_is_trained_itself_goes_the_way_of_peft(calls: list[int]) -> None:
    model: Any = adapted(fused=True)
    model.base_model.model.first.base_layer.weight.requires_grad_()
    found = outcome(model, torch.ones(3, 12))
    assert len(calls) == 1
    assert any("first.base_layer" in name for name in found)


def test_the_operators_keep_to_what_they_say_of_themselves() -> None:
    """Shapes for the compiler, no input changed, gradients right: torch's own check, and that of numbers."""
    draw = torch.Generator().manual_seed(2)
    x, w, b, a, up = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((5, 6), (7, 6), (7,), (2, 6), (7, 2))
    )
    for each in (x, a, up):
        each.requires_grad_()
    torch.library.opcheck(adapted_linear, (x, w, b, a, up, 0.7))

    def output(x: Tensor, a: Tensor, up: Tensor) -> Tensor:
        return adapted_linear(x, w, b, a, up, 0.7)[0]

    assert torch.autograd.gradcheck(output, (x, a, up))
    low = (x @ a.T).detach()
    for wanted in (True, False):
        parts = (t.detach() for t in (torch.ones(5, 7, dtype=torch.float64), x, w, a, up, low))
        torch.library.opcheck(adapted_linear_backward, (*parts, 0.7, wanted))


def test_lora_of_a_run_is_made_of_them_and_holds_its_inputs_once(trainee_of: Callable[..., Trainee]) -> None:
    trainee = trainee_of(small_llama(90), method="lora")
    layer: Any = next(iter(trainee.network.model.layers))
    assert type(layer.mlp.up_proj) is type(layer.self_attn.q_proj) is AdaptedLinear
    held: set[int] = set()

    def seen(tensor: Tensor) -> Tensor:
        if len(tensor) == TOKENS and tensor.grad_fn is None:  # no result, as x Aᵀ is
            held.add(tensor.untyped_storage().data_ptr())
        return tensor

    x = torch.randn(TOKENS, trainee.network.config.hidden_size).bfloat16()
    for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
        nn.Module.to(projection.base_layer, torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(seen, lambda t: t):
            projection(x)
    assert held == {x.untyped_storage().data_ptr()}
