"""The compiler takes the kernels for GPUs that this machine does not have, which the interpreter cannot show."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton', '3.6', reason='the kernels need Triton 3.6 or newer, which this torch does not bring')

SHARED_MEMORY = 99 * 1024  # bytes a program may have on any GPU since sm_80
PRODUCTS = {'mixture_conv._multiply', 'mixture_conv._kernel_gradient', 'mixture_conv._contract'}
KERNELS = PRODUCTS | {'attention._pool', 'attention._squeeze', 'attention._attend', 'attention._heads_gradient',
                      'attention._hidden_gradient', 'mixture_conv._attention_gradients',
                      'mixture_conv._pack', 'mixture_conv._scale', 'mixture_conv._scale_gradient',
                      'mixture_conv._depthwise', 'mixture_conv._depthwise_gradient',
                      'involution._forward', 'involution._input_gradient', 'involution._weight_gradient'}


# each kernel for either architecture; each type beside each way to multiply on one of them, as compiling takes a second
CASES = {80: ['dense:float32', 'dense_own:bfloat16', 'involution:float32', 'attention:float32'],
         90: ['dense:bfloat16', 'one_kernel:bfloat16', 'depthwise:float32', 'involution:bfloat16', 'attention:float32']}


@pytest.mark.first_is_quick('capability')
@pytest.mark.parametrize('capability', CASES)
def test_kernels_compile(run, tmp_path, capability):
    process = run(sys.executable, Path(__file__).with_name('compile_kernels.py'), capability, *CASES[capability],
                  TRITON_INTERPRET='0', TRITON_CACHE_DIR=str(tmp_path))
    assert process.returncode == 0, process.stdout
    compiled = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('{')]
    missing = {'mixture_conv._depthwise', 'mixture_conv._depthwise_gradient', 'mixture_conv._scale'}
    assert len(compiled) == (21 if capability == 80 else 31)
    assert {kernel['name'] for kernel in compiled} == KERNELS - (missing if capability == 80 else set())
    for kernel in compiled:
        assert kernel['code'] > 0 and kernel['shared'] <= SHARED_MEMORY, kernel
        assert kernel['tensor_cores'] == (kernel['name'] in PRODUCTS), kernel
