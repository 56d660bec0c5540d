"""A frozen linear layer with a low-rank adapter beside it, as one operator: what LoRA trains, with fewer passes.

    y = x Wᵀ + b + s (x Aᵀ) Bᵀ            forward: three products, the last one added where y lies
    dx = dy W + s (dy B) A                 backward: likewise, and none of it where nobody asks for dx
    dA = s (dy B)ᵀ x,  dB = s dyᵀ (x Aᵀ)

peft's own layer takes a copy of x in the adapters' precision, and scales and adds in passes of their own; where layers
share an input, as query, key and value do, each holds such a copy for the backward pass. Here they hold x itself. What
is not plain LoRA (DoRA, dropout while training, several adapters, merged ones) goes peft's way.

Legend: N tokens, I inputs, O outputs, R rank.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.model.adapters import LoraLinear


@torch.library.custom_op("sft::adapted_linear", mutates_args=())
def adapted_linear(  # noqa: PLR0917 # an operator's inputs have places
    x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Give y, (N, O), and x Aᵀ, (N, R). All are of one precision."""
    low_NR = x_NI @ a_RI.T
    y_NO = F.linear(x_NI, weight_OI, bias_O)
    return y_NO.addmm_(low_NR, b_OR.T, alpha=scale), low_NR


@torch.library.custom_op("sft::adapted_linear_backward", mutates_args=())
def adapted_linear_backward(  # noqa: PLR0917 # an operator's inputs have places
    dy_NO: Tensor,
    x_NI: Tensor,
    weight_OI: Tensor,
    a_RI: Tensor,
    b_OR: Tensor,
    low_NR: Tensor,
    scale: float,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of x, A and B; that of x is empty where it is not `wanted`."""
    d_low_NR = dy_NO @ b_OR
    da_RI = (d_low_NR.T @ x_NI).mul_(scale)
    db_OR = (dy_NO.T @ low_NR).mul_(scale)
    dx_NI = (dy_NO @ weight_OI).addmm_(d_low_NR, a_RI, alpha=scale) if wanted else dy_NO.new_empty(0)
    return dx_NI, da_RI, db_OR


class AdaptedLinear(LoraLinear):
    """peft's LoRA layer, in one operator where it is plain."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Give the layer's output with its adapter's, (…, O)."""
        adapter = self._plain_adapter() if not args and not kwargs else None
        if adapter is None:
            return super().forward(x, *args, **kwargs)
        base: Any = self.get_base_layer()
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        a_RI, b_OR = (getattr(self, name)[adapter].weight.to(dtype) for name in ("lora_A", "lora_B"))
        bias_O = None if base.bias is None else base.bias.to(dtype)
        x_NI = x.reshape(-1, x.shape[-1]).to(dtype)
        y_NO, _ = adapted_linear(x_NI, base.weight.to(dtype), bias_O, a_RI, b_OR, self.scaling[adapter])
        return y_NO.view(*x.shape[:-1], y_NO.shape[-1])

    def _plain_adapter(self) -> str | None:
        """Name the one adapter, where nothing but it is to be added to a frozen layer."""
        base: Any = self.get_base_layer()
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1 or type(base) is not nn.Linear:
            return None
        (adapter,) = self.active_adapters
        if adapter not in self.lora_A or adapter in self.lora_variant:
            return None
        dropping = self.training and not isinstance(self.lora_dropout[adapter], nn.Identity)
        trained = any(p.requires_grad for p in base.parameters())
        hooked = any(vars(base)[name] for name in ("_forward_hooks", "_forward_pre_hooks"))
        return None if dropping or trained or hooked or self.lora_bias[adapter] else adapter


def _shapes(x_NI: Tensor, weight_OI: Tensor, _bias: Tensor | None, a_RI: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x_NI.new_empty(len(x_NI), len(weight_OI)), x_NI.new_empty(len(x_NI), len(a_RI))


def _shapes_backward(
    dy_NO: Tensor, x_NI: Tensor, _weight: Tensor, a_RI: Tensor, b_OR: Tensor, _low: Tensor, _scale: float, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dx_NI = dy_NO.new_empty(x_NI.shape) if wanted else dy_NO.new_empty(0)
    return dx_NI, dy_NO.new_empty(a_RI.shape), dy_NO.new_empty(b_OR.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x_NI, weight_OI, _, a_RI, b_OR, ctx.scale = inputs
    ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR, output[1])


def _backward(ctx: Any, dy_NO: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    wanted = bool(ctx.needs_input_grad[0])
    dx_NI, da_RI, db_OR = adapted_linear_backward(dy_NO.contiguous(), *ctx.saved_tensors, ctx.scale, wanted)
    return dx_NI if wanted else None, None, None, da_RI, db_OR, None


adapted_linear.register_fake(_shapes)
adapted_linear.register_autograd(_backward, setup_context=_save)
adapted_linear_backward.register_fake(_shapes_backward)
