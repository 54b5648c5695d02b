"""How an operator executes: the one place that asks what surrounds a call.

An operator has a reference, its equation in plain torch, and backends, which compute the same faster. In plain eager
mode it takes the backend that is expected to be the fastest of those that do not refuse the call. A compiler or an
exporter records the operator's graph, plain torch that holds for batches of any size. Everything else runs the
reference: transforms of ``torch.func``, forward-mode AD, dispatch modes such as ``FakeTensorMode``, tensor subclasses,
the meta device, features without a value, and derivatives of derivatives.
"""
from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx import _symbolic_trace
from torch.nn.modules import module as torch_module

from . import kernel_switches

# by torch.compile or torch.export; torch 2.1 has it elsewhere
is_compiling = torch.compiler.is_compiling if hasattr(torch.compiler, 'is_compiling') else torch._utils.is_compiling
# torch.export says so from torch 2.7 on
_is_exporting = getattr(torch.compiler, 'is_exporting', bool)
_AUTOCAST_BY_KIND = hasattr(torch, 'get_autocast_dtype')  # from torch 2.4 on
# torch 2.1 cannot compile a call of it
_is_any_autocast_enabled = torch._C._is_any_autocast_enabled if _AUTOCAST_BY_KIND else lambda: True
_PLAIN = (Tensor, nn.Parameter)
_CALL = nn.Module.__call__  # which somebody may patch later, to see all calls of modules

# Choices that are remembered. Training at many image sizes makes many.
REMEMBERED = 4096

AUTOGRAD = 'autograd'
"""In place of a backward function: autograd knows all operations of the forward one."""

Call = tuple  # a NamedTuple: an operator's tensors, features first, then its other arguments


class Target(NamedTuple):
    """What an exporter writes the graph of one image for."""

    runtime: str
    """The one that is to run it fast: 'onnxruntime' or 'openvino'."""
    any_size: bool
    """Whether it takes images of other sizes than that which it is traced with."""


class Backend(NamedTuple):
    """A way to execute an operator."""

    forward: Callable[[Any], Tensor]
    """Takes a call. No gradients are recorded in it unless ``backward`` is :data:`AUTOGRAD`."""
    refuses: Callable[[Any], str | None] = lambda call: None
    """Why it cannot execute a call, or None. It looks at what :meth:`Operator.choose` remembers choices by: shapes,
    of features and weight, type, device and memory format of the features, which tensors there are, switches and the
    number of threads."""
    backward: Callable[[Any, Tensor, tuple[bool, ...]], tuple[Tensor | None, ...]] | str | None = AUTOGRAD
    """Takes a call, the gradient of the output (of all, if there are several) and, for each tensor of the call, whether
    its gradient is needed, and returns these gradients. None: for inference alone."""
    takes_norm: bool = False
    """Whether it takes calls with a batch norm behind the operator."""
    mixes_types: bool = False
    """Whether it takes features of one type beside other tensors of another, and computes in that of the features:
    under autocast these alone are cast."""
    is_recorded: bool = False
    """Whether compilers record its functions; else they run in plain eager mode alone."""


class Operator:
    """An operator of a reference, a graph and backends. Called with a call, it returns the output.

    Automatic mixed precision casts its tensors, as it does for a convolution.

    Args:
        tensors (int): how many of a call's first fields are tensors, or None.
        reference (Callable): takes a call; its equation in plain torch.
        rank (Callable, optional): takes a call and whether gradients are needed, and returns the names of backends, the
            one first that is expected to be the fastest. Default: as they are registered.
        frugal (str, optional): name of the backend that needs the least memory, which is tried where another one runs
            out of it.
        fold_norm (Callable, optional): takes a call whose last field is a batch norm, and returns an equal one whose
            last field is None. Only backends that say so take calls with a norm.

    Attributes:
        backends (dict[str, Backend]): by name.
        graph (Callable): takes a call without a norm; what compilers record. Default: the reference.
        exported (Callable): takes a call; what exporters record. Default: the same.
        plan_for_all (ContextVar): name of the backend that is to execute all calls of this thread that it does not
            refuse, or None.
    """

    def __init__(self, tensors: int, reference: Callable[[Any], Tensor],
                 rank: Callable[[Any, bool], Iterable[str]] | None = None, frugal: str | None = None,
                 fold_norm: Callable[[Any], Call] | None = None) -> None:
        self.tensors = tensors
        self.fold_norm = fold_norm
        self.reference = self.graph = reference
        self.exported = lambda call: self.graph(self.without_norm(call))
        self.rank = rank
        self.frugal = frugal
        self.backends: dict[str, Backend] = {}
        self.plan_for_all: ContextVar[str | None] = ContextVar('plan', default=None)
        self._choices: dict[tuple, Backend] = {}

    def __call__(self, call: Call, plan: str = 'auto') -> Tensor:
        x, tensors = call[0], call[:self.tensors]
        if self.fold_norm is not None and call[-1] is not None:
            tensors = (*tensors, *call[-1][:4])
        dtype = autocast_dtype(x)
        backend = None
        if dtype is not None:
            if (not x.is_cpu or plan in self.backends and self.backends[plan].mixes_types) and not is_recorded() \
                    and is_plain_eager(*tensors) and x.numel() > 0:
                mixed, needs_grad = type(call)(x.to(dtype), *call[1:]), records_gradients(*tensors)
                backend = self.choose(mixed, plan, needs_grad)
            if backend is None or not backend.mixes_types:
                call = self._cast(self.without_norm(call), dtype)
                with torch.autocast(x.device.type, enabled=False):
                    return self(call, plan)
            call, x = mixed, mixed[0]
        else:
            check_dtype(x, call[1])
            if is_recorded():
                return self.exported(call) if is_exported() else self.graph(self.without_norm(call))
            if not is_plain_eager(*tensors) or x.numel() == 0:
                return self.reference(self.without_norm(call))
            needs_grad = records_gradients(*tensors)
            backend = self.choose(call, plan, needs_grad)
        if not backend.takes_norm or needs_grad and backend.backward is not AUTOGRAD:
            call = self.without_norm(call)
        try:
            y = execute(self, backend, call) if needs_grad else backend.forward(call)
        except RuntimeError as error:
            y = self._with_least_memory(call, backend, error)
        if not x.is_contiguous() and is_channels_last(x):
            y = y.contiguous(memory_format=torch.channels_last)
        return _no_view(y)

    def run(self, call: Call, plan: str) -> Tensor | tuple[Tensor, ...]:
        """What a call puts out, by the backend of that name where it takes it, and else by the reference: for operators
        that no network sees, which have no types to cast."""
        backend = self.backends[plan]
        if is_plain_eager(*call[:self.tensors]) and backend.refuses(call) is None:
            return execute(self, backend, call)
        return self.reference(call)

    def _cast(self, call: Call, dtype: torch.dtype) -> Call:
        """A call whose tensors are of that type, as autocast casts them."""
        return type(call)(*[tensor.to(dtype) if tensor is not None and _is_cast(tensor) else tensor
                            for tensor in call[:self.tensors]], *call[self.tensors:])

    def without_norm(self, call: Call) -> Call:
        """An equal call without a batch norm."""
        return call if self.fold_norm is None or call[-1] is None else self.fold_norm(call)

    def choose(self, call: Call, plan: str, needs_grad: bool) -> Backend:
        """The backend that is to execute a call.

        Args:
            call (NamedTuple): the call.
            plan (str): a name in ``backends``, or 'auto'; ``plan_for_all`` comes before it.
            needs_grad (bool): whether gradients are needed.

        Raises:
            ValueError: the backend of that name refuses the call.
        """
        asked = self.plan_for_all.get()
        if asked is not None and self.refusal(asked, call, needs_grad) is None:
            return self.backends[asked]
        if plan != 'auto':
            reason = self.refusal(plan, call, needs_grad)
            if reason is None:
                return self.backends[plan]
            able = sorted(name for name in self.backends if self.refusal(name, call, needs_grad) is None)
            raise ValueError(f'plan {plan!r} cannot serve {reason}; those that can: {able}')
        # all that a backend may refuse a call for
        x, arguments = call[0], call[self.tensors:]
        if self.fold_norm is not None:
            arguments = (*arguments[:-1], arguments[-1] is None)
        key = (x.shape, call[1].shape, arguments, needs_grad, x.dtype, x.device, x.is_contiguous(),
               torch.get_num_threads(), kernel_switches.in_all_threads, kernel_switches.in_this_thread.get(),
               *[tensor is None for tensor in call[2:self.tensors]])
        choice = self._choices.get(key)
        if choice is None:
            names = self.backends if self.rank is None else self.rank(call, needs_grad)
            names = [name for name in names if name in self.backends]
            choice = next((self.backends[name] for name in names if self.refusal(name, call, needs_grad) is None),
                          Backend(self.reference))
            if len(self._choices) >= REMEMBERED:
                self._choices.clear()
            self._choices[key] = choice
        return choice

    def refusal(self, name: str, call: Call, needs_grad: bool) -> str | None:
        """Why a backend cannot execute a call, or None."""
        backend = self.backends[name]
        return 'calls that need gradients' if needs_grad and backend.backward is None else backend.refuses(call)

    def _with_least_memory(self, call: Call, failed: Backend, error: RuntimeError) -> Tensor:
        """The call once more by the backend that needs the least memory, if memory is what was short."""
        # the CPU's allocator raises a plain RuntimeError
        out_of_memory = isinstance(error, torch.cuda.OutOfMemoryError) or 'DefaultCPUAllocator' in str(error)
        name = next((name for name, backend in self.backends.items() if backend is failed), 'reference')
        if not out_of_memory or self.frugal in (None, name):
            raise error
        warnings.warn(f'out of memory in plan {name!r} for input {tuple(call[0].shape)}: trying '
                      f'{self.frugal!r}, which is slower. Reduce the batch size, or set plan={self.frugal!r} to go '
                      'without the attempt.', stacklevel=5)
        return execute(self, self.backends[self.frugal], self._cast(self.without_norm(call), call[0].dtype))


def execute(operator: Operator, backend: Backend, call: Call) -> Tensor | tuple[Tensor, ...]:
    """What a call puts out, by a backend, whose own backward function autograd is to use where gradients are needed."""
    if backend.backward is AUTOGRAD or not records_gradients(*call[:operator.tensors]):
        return backend.forward(call)
    return _Differentiable.apply(operator, backend, type(call), call[operator.tensors:], *call[:operator.tensors])


def _no_view(y: Tensor) -> Tensor:
    """A fresh output that is no view, which operations in place behind the operator could not change."""
    return torch.ops.aten._unsafe_view(y, y.shape) if y._is_view() else y


class _Differentiable(torch.autograd.Function):
    """A backend with a backward function of its own. Derivatives of its gradients are those of the reference."""

    @staticmethod
    def forward(ctx, operator: Operator, backend: Backend, kind: type, arguments: tuple, *tensors: Tensor | None,
                ) -> Tensor | tuple[Tensor, ...]:
        # no setup_context of its own: torch would look at the signature of this function at each call
        ctx.operator, ctx.backend, ctx.kind, ctx.arguments = operator, backend, kind, arguments
        ctx.save_for_backward(*tensors)
        y = backend.forward(kind(*tensors, *arguments))
        ctx.has_one_output = isinstance(y, Tensor)
        return _no_view(y) if ctx.has_one_output else y

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[4:]
        create_graph = torch.is_grad_enabled()
        # what the forward pass computed in is the tensors' dtype, whatever surrounds the backward pass
        with torch.autocast(grad_outputs[0].device.type, enabled=False) if _is_any_autocast_enabled() \
                else nullcontext():
            # several gradients at once (is_grads_batched) come as one tensor that has no memory
            is_batched = not all(map(torch._C._has_storage, grad_outputs))
            if ctx.backend.is_recorded or not (create_graph or is_batched) and is_plain_eager(*grad_outputs, *tensors):
                gradients = ctx.backend.backward(ctx.kind(*tensors, *ctx.arguments),
                                                 grad_outputs[0] if ctx.has_one_output else grad_outputs, needed)
                return None, None, None, None, *gradients
            # aliases: a tensor may have been computed from another one, and its gradient is not to flow on into that
            with torch.enable_grad():
                aliases = [None if tensor is None else tensor.view_as(tensor) if create_graph
                           else tensor.detach().requires_grad_(needs)
                           for tensor, needs in zip(tensors, needed)]
                call = ctx.kind(*aliases, *ctx.arguments)
                y = ctx.operator.reference(ctx.operator._cast(call, tensors[0].dtype))
            wanted = [alias for alias, needs in zip(aliases, needed) if needs]
            # of several outputs some may depend on nothing that needs a gradient
            pairs = [(output, grad) for output, grad in zip((y, ) if ctx.has_one_output else y, grad_outputs)
                     if output.requires_grad]
            gradients = iter(torch.autograd.grad([output for output, _ in pairs], wanted, [grad for _, grad in pairs],
                                                 create_graph=create_graph))
            return None, None, None, None, *(next(gradients) if needs else None for needs in needed)


# What surrounds a call.


def is_recorded() -> bool:
    """Whether the call is recorded, for batches of any size: compiled, exported or traced."""
    return is_compiling() or is_exported() or _symbolic_trace._is_fx_tracing_flag


def warn(message: str) -> None:
    """Warn of what a call does, at the caller's caller; in a call that is recorded there is nobody to be warned."""
    if not is_recorded():
        warnings.warn(message, stacklevel=3)


def is_known(condition: bool | torch.SymBool) -> bool:
    """Whether a condition on sizes holds for all that the call is recorded for; to ask does not narrow these."""
    if not hasattr(torch.compiler, 'is_exporting'):  # torch before 2.7 cannot compile it
        return False
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # which torch itself imports late
    return statically_known_true(condition)


def is_exported() -> bool:
    """Whether the call is recorded for another runtime: by ``torch.export`` or ``torch.jit.trace``, of which ONNX
    exporters use the one or the other."""
    return torch.jit.is_tracing() or _is_exporting()


export_for: ContextVar[Target | None] = ContextVar('export_for', default=None)
"""Set by an exporter that knows what it writes for."""


def export_target() -> Target | None:
    """What the call is recorded for, if an exporter has said so."""
    return export_for.get() if is_exported() else None


def is_plain_eager(*tensors: Tensor | None) -> bool:
    """Whether these tensors have memory that holds their numbers, and nobody follows what is done with it."""
    if torch._C._len_torch_dispatch_stack() or torch._C._functorch.peek_interpreter_stack() is not None \
            or forward_ad._current_level >= 0:
        return False
    for tensor in tensors:
        if tensor is not None and (type(tensor) not in _PLAIN or tensor.is_meta or tensor.is_neg()):
            return False
    return True


def is_inference(*tensors: Tensor | None) -> bool:
    """Whether these tensors have memory of their own, and nobody follows or differentiates what is done with it."""
    return is_plain_eager(*tensors) and not records_gradients(*tensors)


def records_gradients(*tensors: Tensor | None) -> bool:
    """Whether a function of these tensors is to be differentiated."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The dtype in which autocast runs a convolution of ``tensor``, or None where it leaves it as it is."""
    if not _is_any_autocast_enabled() or not isinstance(tensor, Tensor):  # but a stand-in of torch.fx
        return None
    kind = tensor.device.type
    if kind == 'meta' or not _is_cast(tensor):
        return None
    if _AUTOCAST_BY_KIND:
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if kind == 'cpu':  # torch before 2.4
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def check_dtype(input: Tensor, weight: Tensor) -> None:
    """Raise a ValueError unless features have the dtype of what they meet, or autocast casts both."""
    if isinstance(input, Tensor) and input.dtype is not weight.dtype and autocast_dtype(input) is None:
        raise ValueError(f'input must have the dtype of weight, {weight.dtype}, but has {input.dtype}: convert it, by '
                         f'input.to({weight.dtype}), or the module')


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Within it autocast leaves what is done with ``tensor`` as it is."""
    return nullcontext() if autocast_dtype(tensor) is None else torch.autocast(tensor.device.type, enabled=False)


def _is_cast(tensor: Tensor) -> bool:
    """Whether autocast casts a tensor: it leaves integers and float64 as they are."""
    return tensor.is_floating_point() and tensor.dtype != torch.float64


def is_left_out(argument: object) -> bool:
    """Whether an argument of a module stands for a None that was left out, where ``torch.fx`` traces the module by
    itself."""
    return isinstance(argument, torch.fx.Proxy) and argument.node.op == 'placeholder' \
        and argument.node.args == (None, )


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies in memory with its channels last, and not with them first at the same time."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def is_plain(module: nn.Module) -> bool:
    """Whether to call a module is to call the ``forward`` of its class: no hooks, nothing patched, nothing compiled."""
    if not _AUTOCAST_BY_KIND and is_compiling():  # torch 2.1 cannot compile what follows
        return False
    own = vars(module)
    return not (own['_forward_hooks'] or own['_forward_pre_hooks'] or own['_backward_hooks']
                or own['_backward_pre_hooks'] or 'forward' in own or own.get('_compiled_call_impl')
                or torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks
                or torch_module._global_backward_hooks or torch_module._global_backward_pre_hooks) \
        and type(module).__call__ is _CALL


# Memory for intermediate results that is kept from call to call. On a CPU, fresh memory costs more than filling it: the
# system maps and clears it page by page at the first touch.

# Elements beyond which a result gets memory of its own: what is kept is bounded, a few such buffers a thread.
KEPT_ELEMENTS = 2**23
# Shapes whose views of a buffer are kept too: to make one anew takes as long as another operator.
KEPT_VIEWS = 1024

_local = threading.local()


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor of the dtype and device of ``like``, overwritten by the next call of the same name.

    For backends, which run in plain eager mode, and for what ends with the call: no result lies in it.

    Args:
        name (str): what it is for; results that live at the same time have different names.
        shape (tuple[int, ...]): its shape.
        like (Tensor): gives dtype and device.
    """
    kept = _local.__dict__
    view = kept.setdefault('views', {}).get((name, shape, like.dtype))
    if view is not None and like.is_cpu:
        return view
    size = math.prod(shape)
    if not like.is_cpu or size > KEPT_ELEMENTS:
        return like.new_empty(shape)
    buffers = kept.setdefault('buffers', {})
    key = name, like.dtype
    buffer = buffers.get(key)
    # no inference tensor, which could not be written to outside of inference mode
    with torch.inference_mode(False):
        if buffer is None or buffer.numel() < size:
            kept['views'].clear()  # of the smaller buffer
            buffer = buffers[key] = torch.empty(size, dtype=like.dtype, device='cpu')
        if len(kept['views']) >= KEPT_VIEWS:
            kept['views'].clear()
        return kept['views'].setdefault((name, shape, like.dtype), buffer[:size].view(shape))
