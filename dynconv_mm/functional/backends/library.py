"""Involution as operators of ``torch.library``, each of which a compiler takes as one step.

So it does not look into their loops. The 'Meta' versions say what a result looks like, memory order included.
"""
from __future__ import annotations

import torch
from torch import Tensor

from ..involution import INVOLUTION, Involution
from ..operator import Backend, execute
from .products import empty_output


def _call(input: Tensor, weight: Tensor, *geometry: list[int]) -> Involution:
    return Involution(input, weight, *[tuple(pair) for pair in geometry])


def _output(*arguments: Tensor | list[int]) -> Tensor:
    call = _call(*arguments)
    return INVOLUTION.choose(call, 'auto', False).forward(call)


def _gradients(grad: Tensor, arguments: tuple[Tensor | list[int], ...], *needed: bool) -> tuple[Tensor | None, ...]:
    call = _call(*arguments)
    return INVOLUTION.choose(call, 'auto', True).backward(call, grad, needed)


def _below_autograd(call: Involution) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.dynconv_mm.involution2d(*call)


def _backward(call: Involution, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    operators = torch.ops.dynconv_mm
    return (operators.involution2d_grad_input(grad, *call) if needed[0] else None,
            operators.involution2d_grad_weight(grad, *call) if needed[1] else None)


LIBRARY = torch.library.Library('dynconv_mm', 'DEF')
_OPERATORS = Backend(_below_autograd, backward=_backward, is_recorded=True)
_ARGUMENTS = 'Tensor input, Tensor weight, int[2] stride, int[2] padding, int[2] dilation'
for _name, _schema, _function, _meta in (
    ('involution2d', _ARGUMENTS, _output, lambda *arguments: empty_output(_call(*arguments))),
    ('involution2d_grad_input', f'Tensor grad, {_ARGUMENTS}',
     lambda grad, *arguments: _gradients(grad, arguments, True, False)[0],
     lambda grad, input, weight, *geometry: torch.empty_like(input)),
    ('involution2d_grad_weight', f'Tensor grad, {_ARGUMENTS}',
     lambda grad, *arguments: _gradients(grad, arguments, False, True)[1],
     lambda grad, input, weight, *geometry: torch.empty_like(weight)),
):
    LIBRARY.define(f'{_name}({_schema}) -> Tensor')
    LIBRARY.impl(_name, _function, 'CompositeExplicitAutograd')
    LIBRARY.impl(_name, _meta, 'Meta')
INVOLUTION.graph = lambda call: torch.ops.dynconv_mm.involution2d(*call)
LIBRARY.impl('involution2d', lambda *arguments: execute(INVOLUTION, _OPERATORS, _call(*arguments)), 'Autograd')
