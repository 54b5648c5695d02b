"""What the Numba kernels have in common: how they are compiled, and tensors as addresses.

Arguments that have the names of tensors are their addresses; 0 stands for a tensor that is not given. ``zero`` is the
one of ``ZEROS`` that has the tensors' type, which makes it the type of the computation. An address costs a tenth of a
NumPy array of the tensor, and a call has a dozen.
"""
from __future__ import annotations

from collections.abc import Callable

from numba import njit, types
from numba.extending import intrinsic

# Nothing that would take NaN and infinity for numbers: what is broken must stay to be seen.
OPTIONS = dict(nogil=True, error_model='numpy', fastmath={'reassoc', 'contract', 'arcp', 'nsz'})


def compiled(function: Callable) -> Callable:
    """Compile a function when it is first called, and keep the machine code for later processes."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # there is no folder to keep it in
        return njit(**OPTIONS)(function)


@intrinsic
def pointer(typing_context, address, like):
    """The numbers of the type of ``like`` that lie at an address."""
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
    return types.CPointer(like)(types.int64, like), generate
