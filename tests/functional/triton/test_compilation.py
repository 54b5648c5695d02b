"""The compiler takes the kernels for GPUs that this machine does not have, which the interpreter cannot show."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton', '3.7', reason='the kernels need Triton 3.7 or newer, which this torch does not bring')

SHARED_MEMORY = 99 * 1024  # bytes a program may have on any GPU since sm_80
KERNELS = {f'{module}.{kernel}' for module in ('mixture_conv', 'involution')
           for kernel in ('_forward', '_input_gradient', '_weight_gradient')}


@pytest.mark.parametrize('capability', [80, 90])
def test_kernels_compile(run, tmp_path, capability):
    process = run(sys.executable, Path(__file__).with_name('compile_kernels.py'), capability,
                  TRITON_INTERPRET='0', TRITON_CACHE_DIR=str(tmp_path))
    assert process.returncode == 0, process.stdout
    compiled = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('{')]
    for dtype in ('torch.bfloat16', 'torch.float32'):
        assert {kernel['name'] for kernel in compiled if kernel['dtype'] == dtype} == KERNELS
    for kernel in compiled:
        assert kernel['code'] > 0 and kernel['shared'] <= SHARED_MEMORY, kernel
        assert kernel['tensor_cores'] == (kernel['layer'] == 'dense'), kernel
